"""What a whole run costs: learned rates against uniform ones, and against timm's own plain loop on the same images.

Everything is counted: reading, scan, rates, fine-tuning, evaluation, report. All three take the same number of steps
over the quickstart's pictures; rounds are interleaved, and medians of the ratios within a round are printed, of wall
time and, since other processes disturb that, of CPU time (this process, its threads and its children).

    python benchmarks/run_cost.py --rounds 3 --json benchmarks/results/run_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.utils.data import DataLoader

from homing.features.forward import forward
from homing.flow import run
from homing.models.backbone import build_model
from homing.models.inputs import ImageInputs, batches_of
from homing.pools.images import Images
from homing.pools.problem import open_problem
from homing.quickstart import draw_pools
from homing.recipe.reading import read_recipe, shipped_recipes

SIZE, BATCH = 96, 32
_CPU = ("user", "system", "children_user", "children_system")


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of the processors over all threads and finished children."""

    wall: float
    cpu: float


def cost_of(work: Callable[[], None]) -> Cost:
    wall, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    cpu = sum(getattr(after, kind) - getattr(before, kind) for kind in _CPU)
    return Cost(round(time.perf_counter() - wall, 2), round(cpu, 2))


def one_run(data: Path, folder: Path, method: str, steps: int) -> None:
    roles = [f"data.{role}.path={data / role}" for role in ("source", "target", "test")]
    changes = [*roles, f"rates.method={method}", f"training.steps={steps}", f"model.image_size={SIZE}"]
    recipe = read_recipe(
        shipped_recipes()["quickstart"],
        [*changes, "evaluation.baselines=[]", "training.target_weight=10", "output.cache=none"],
    )
    run(recipe, folder / method, quiet=True, overwrite=True)


def plain_loop(data: Path, steps: int) -> None:
    """Fine-tuning as timm's own script does it: ImageFolder, timm's transforms, a DataLoader with two workers."""
    model, _, _ = build_model("tf_efficientnet_lite0", "bundled", num_classes=10, image_size=SIZE, seed=0)
    model = model.to(memory_format=torch.channels_last)
    config = timm.data.resolve_model_data_config(model, args={"input_size": (3, SIZE, SIZE)})
    augment = timm.data.create_transform(**config, is_training=True, scale=(0.6, 1.0), hflip=0.0)
    train = timm.data.create_dataset("folder", root=str(data / "source"), split="train", transform=augment)
    target = timm.data.create_dataset("folder", root=str(data / "target"), split="train", transform=augment)
    pool = torch.utils.data.ConcatDataset([train, *[target] * 10])
    loader = DataLoader(pool, BATCH, shuffle=True, num_workers=2, drop_last=True)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.01)
    done = 0
    while done < steps:
        for images, labels in loader:
            model.train()
            functional.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
    model.eval()
    plain = timm.data.create_transform(**config, is_training=False)
    test = timm.data.create_dataset("folder", root=str(data / "test"), split="test", transform=plain)
    with torch.inference_mode():
        for images, _ in DataLoader(test, 64, num_workers=2):
            model(images.to(memory_format=torch.channels_last))


def scan_ratio(data: Path, rounds: int) -> list[float]:
    """Images per second of the scan on decoded images, over those of a bare timm forward pass."""
    recipe = read_recipe(
        shipped_recipes()["quickstart"], [f"data.{r}.path={data / r}" for r in ("source", "target", "test")]
    )
    problem = open_problem(recipe.data)
    model, preprocessing, _ = build_model("tf_efficientnet_lite0", "bundled", num_classes=10, image_size=SIZE, seed=0)
    model = model.to(memory_format=torch.channels_last).eval()
    store, rows, names = problem.joined()
    images = Images(store, rows, names, canvas=preprocessing.canvas, workers=2)
    images.find_bad()
    accelerator = Accelerator()
    inputs = ImageInputs(images, preprocessing, None, seed=0, device=accelerator.device)
    some = np.arange(1280)
    ready = list(inputs.evaluating(batches_of(some, 64)))

    def bare() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in ready:
                model.forward_head(model.forward_features(batch), pre_logits=True)
        return time.perf_counter() - started

    def ours() -> float:
        started = time.perf_counter()
        for _ in forward(model, inputs.scanning(list(batches_of(some, 64))), accelerator.device, "fp32"):
            pass
        return time.perf_counter() - started

    bare(), ours()
    return [bare() / ours() for _ in range(rounds)]


def ratio(rows: list[dict[str, Cost]], one: str, other: str, clock: str) -> float:
    """Median over the rounds of one cost over another."""
    return round(statistics.median(getattr(row[one], clock) / getattr(row[other], clock) for row in rows), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Cost]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, steps = folder / "data", arguments.steps
        draw_pools(data, 0)
        plain_loop(data, 5)  # warm the caches of files and kernels
        kinds: dict[str, Callable[[], None]] = {
            "plain": lambda: plain_loop(data, steps),
            "uniform": lambda: one_run(data, folder, "uniform", steps),
            "hierarchical": lambda: one_run(data, folder, "hierarchical", steps),
        }
        for _ in range(arguments.rounds):
            rows.append({})
            for kind, work in kinds.items():
                rows[-1][kind] = cost_of(work)
                print(kind, rows[-1][kind], file=sys.stderr, flush=True)
        scans = [round(ratio, 3) for ratio in scan_ratio(data, 5)]
    summary = {
        **{f"hierarchical_to_{to}": ratio(rows, "hierarchical", to, "wall") for to in ("uniform", "plain")},
        **{f"hierarchical_to_{to}_cpu": ratio(rows, "hierarchical", to, "cpu") for to in ("uniform", "plain")},
        "scan_to_bare_forward": statistics.median(scans),
    }
    print(summary)
    if arguments.json:
        content = {
            "command": f"python benchmarks/run_cost.py --rounds {arguments.rounds} --steps {arguments.steps}",
            "summary": summary,
            "rows": [{kind: asdict(cost) for kind, cost in row.items()} for row in rows],
            "scans": scans,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "versions": {"torch": torch.__version__, "timm": timm.__version__},
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
