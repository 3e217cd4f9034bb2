"""What rates cost without training: `recipes/reweight.yaml` against a bare timm feature pass over the same corpus.

The corpus is PACS (all four domains, from $HOMING_DATA/pacs) without 35 cartoons, which are the target. Both read,
decode and put every image through the same backbone, with one thread of torch and one core to decode with; the run also
fingerprints the images, learns the rates, and writes them. Then the run is done once more, with the features kept.
Wall time and CPU time are both given: on a machine that others use, the second is the one to trust.

    HOMING_DATA=data python benchmarks/reweight_cost.py --images 2500 --size 160 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import timm
import torch
from torch.utils.data import DataLoader

from homing.flow import run
from homing.models.backbone import build_model
from homing.recipe.reading import read_recipe, shipped_recipes

_Result = TypeVar("_Result")
BACKBONE = "tf_efficientnet_lite0"


def lay_out(pacs: Path, folder: Path, num_images: int | None) -> None:
    """Links: `source/<class>/<domain>-<name>` and `target/<class>/<name>`."""
    files = sorted(pacs.glob("*/*/*.jpg")) or sorted(pacs.glob("*/*/*.png"))
    if not files:
        raise SystemExit(f"{pacs}: holds no images; lay PACS out as domain/class/image and set HOMING_DATA")
    random.Random(0).shuffle(files)
    taken: dict[str, int] = {}
    count = 0
    for file in files:
        domain, label = file.parts[-3:-1]
        is_target = domain == "cartoon" and taken.get(label, 0) < 5
        taken[label] = taken.get(label, 0) + is_target
        if not is_target and num_images is not None and count >= num_images:
            continue
        count += not is_target
        place = folder / ("target" if is_target else "source") / label / f"{domain}-{file.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file.resolve())


@torch.inference_mode()
def bare_pass(source: Path, size: int) -> None:
    """Timm's own dataset, transform, loader and model; pooled features of every image."""
    model, _, _ = build_model(BACKBONE, "bundled", num_classes=7, image_size=size, seed=0)
    model = model.eval().to(memory_format=torch.channels_last)
    config = timm.data.resolve_model_data_config(model, args={"input_size": (3, size, size)})
    transform = timm.data.create_transform(**config, is_training=False)
    dataset = timm.data.create_dataset("folder", root=str(source), split="train", transform=transform)
    features = []
    for images, _ in DataLoader(dataset, 64, num_workers=1):
        images = images.to(memory_format=torch.channels_last)
        features.append(model.forward_head(model.forward_features(images), pre_logits=True))
    assert len(torch.cat(features)) == len(dataset)


def timed(work: Callable[[], _Result]) -> tuple[_Result, dict[str, float]]:
    """What it gives, and its seconds: wall, and CPU of this process and of those that it started."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = work()
    return result, {"wall": round(time.perf_counter() - wall, 2), "cpu": round(cpu_seconds() - cpu, 2)}


def cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def reweight(data: Path, folder: Path, cache: Path, size: int) -> int:
    roles = [f"data.{role}.path={data / role}" for role in ("source", "target")]
    changes = [*roles, "data.source.label_column=null", f"model.image_size={size}", f"output.cache={cache}"]
    recipe = read_recipe(shipped_recipes()["reweight"], [*changes, "training.workers=1"])
    return run(recipe, folder, quiet=True).results["cost"]["scanned_source_images"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="of the corpus; default: all")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(Path(os.environ.get("HOMING_DATA", "data")) / "pacs", folder, arguments.images)
        for number in range(arguments.rounds):
            cache = folder / f"cache-{number}"
            _, bare = timed(lambda: bare_pass(folder / "source", arguments.size))
            scanned, first = timed(partial(reweight, folder, folder / f"run-{number}", cache, arguments.size))
            none, again = timed(partial(reweight, folder, folder / f"again-{number}", cache, arguments.size))
            assert none == 0
            rows.append({"images": scanned, "size": arguments.size, "bare": bare, "run": first, "again": again})
            print(rows[-1], flush=True)
    for clock in ("wall", "cpu"):
        ratios = [row["run"][clock] / row["bare"][clock] for row in rows]
        print(f"{clock}: median ratio {statistics.median(ratios):.3f}")
    if arguments.json is not None:
        about = {"torch": torch.__version__, "timm": timm.__version__, "machine": platform.machine()}
        arguments.json.write_text(json.dumps({"rows": rows, **about}, indent=1) + "\n")


if __name__ == "__main__":
    main()
