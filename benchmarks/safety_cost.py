"""What safety costs: the checks of every step, and a checkpoint every 500 steps, against the step itself.

The quickstart's recipe and pictures, without weights: they cost the same. Checks are the gradient's norm and the test
of losses, gradient and alignments; a save is everything from the state to the renamed folder. Times of this thread on
the CPU, so that other work on the machine does not count; of saves the wall time too, which waits for the disk.

    python benchmarks/safety_cost.py --json benchmarks/results/safety_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch

from homing.flow import run
from homing.quickstart import draw_pools
from homing.recipe.reading import read_recipe, shipped_recipes
from homing.training.loop import FineTuning
from homing.training.records import Checkpoints

EVERY = 500
TIMES: dict[str, list[tuple[float, float]]] = defaultdict(list)


def clocks() -> tuple[float, float]:
    return time.thread_time(), time.perf_counter()


def timed(owner: type, name: str) -> None:
    """Note the (CPU, wall) seconds of every call of a method."""
    method = getattr(owner, name)

    def noting(*arguments: Any, **more: Any) -> Any:
        began = clocks()
        result = method(*arguments, **more)
        ended = clocks()
        TIMES[name].append((ended[0] - began[0], ended[1] - began[1]))
        return result

    setattr(owner, name, noting)


def measure(data: Path, folder: Path, method: str, steps: int, saves: int) -> dict[str, float]:
    """Milliseconds of each part, and the shares of a step that they take."""
    roles = [f"data.{role}.path={data / role}" for role in ("source", "target", "test")]
    changes = [f"rates.method={method}", f"training.steps={steps}", "evaluation.baselines=[]", "model.weights=none"]
    changes += ["model.head_init=random", f"output.checkpoint_every={max(1, steps // saves)}"]
    changes += ["training.workers=0", "training.target_weight=10"]
    TIMES.clear()
    run(read_recipe(shipped_recipes()["quickstart"], [*roles, *changes]), folder / method, quiet=True)
    saved = TIMES["save"]
    checks = (sum(c for c, _ in TIMES["gradient_norm"]) + sum(c for c, _ in TIMES["stop_if_not_finite"])) / steps
    step = (TIMES["run"][0][0] - sum(cpu for cpu, _ in saved)) / steps
    cpu, wall = (statistics.median(pair[clock] for pair in saved) for clock in (0, 1))
    return {
        "step_ms": 1e3 * step,
        "checks_ms": 1e3 * checks,
        "save_cpu_ms": 1e3 * cpu,
        "save_wall_ms": 1e3 * wall,
        "num_saves": len(saved),
        "checks_share": checks / (step - checks),
        "safety_share": (checks + wall / EVERY) / (step - checks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--saves", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for owner, name in ((FineTuning, "run"), (FineTuning, "gradient_norm"), (FineTuning, "stop_if_not_finite")):
        timed(owner, name)
    timed(Checkpoints, "save")
    with tempfile.TemporaryDirectory() as folder:
        draw_pools(Path(folder) / "data", 0)
        rows = {
            method: measure(Path(folder) / "data", Path(folder), method, arguments.steps, arguments.saves)
            for method in ("uniform", "instance")
        }
    for method, row in rows.items():
        print(f"{method:10}" + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if arguments.json:
        about = {
            "command": "python benchmarks/safety_cost.py",
            "steps": arguments.steps,
            "every": EVERY,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "timm": timm.__version__,
        }
        arguments.json.write_text(json.dumps({**about, "methods": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
