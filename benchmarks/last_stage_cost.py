"""What a run that trains the last stage costs on kept activations, against every visit through the whole model.

A default run of two epochs over a pool of PACS pictures (cartoons hidden in it, some labels wrong), by the own method
alone and with two baselines, from nothing to the report. Rounds are interleaved; what is printed are medians of the
ratios within a round, of the whole run and of its trainings, in CPU time (other processes disturb the clock) and on the
clock. `training.views: 0` is what is compared with.

    HOMING_DATA=... python benchmarks/last_stage_cost.py --rounds 3 --json benchmarks/results/last_stage_cost.json
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
from pathlib import Path

import torch
from layout import Scenario, lay_out, others

from homing import flow
from homing.outputs.provenance import versions
from homing.recipe.reading import read_recipe, shipped_recipes

SCENARIO = Scenario("personalize", "cartoon", others("cartoon"), 0.1, 0.2, pool=1500)
BASELINES = {1: "[]", 3: "[pooled_oversampled, density_ratio]"}
BACKBONES = {"tf_efficientnet_lite0": "bundled", "resnet18": "none"}


class Trainings:
    """Adds up what trainings take, within what they are called by."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.fit = flow.fit_branches

    def __call__(self, *arguments):
        """Fit, by the clock."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return self.fit(*arguments)
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu


def one_run(data: Path, folder: Path, backbone: str, methods: int, views: int, extra: list[str]) -> dict:
    roles = [f"data.{role}.path={data / role}" for role in ("source", "target", "test")]
    changes = [f"model.backbone={backbone}", f"model.weights={BACKBONES[backbone]}", "model.image_size=96"]
    changes += ["model.trainable=last_stage", "data.test.limit=500", "output.cache=none", f"training.views={views}"]
    changes += [f"evaluation.baselines={BASELINES[methods]}", *extra]
    recipe = read_recipe(shipped_recipes()[SCENARIO.recipe], [*roles, *changes])
    flow.fit_branches = trainings = Trainings()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        found = flow.run(recipe, folder, quiet=True, overwrite=True).results
    finally:
        flow.fit_branches = trainings.fit
    return {
        "run": {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu},
        "training": {"wall": trainings.wall, "cpu": trainings.cpu},
        "accuracy": {name: row["accuracy"] for name, row in found["baselines"].items()}
        | {found["method"]: found["target"]["accuracy"]},
    }


def ratios(rounds: list[dict[int, dict]], views: int) -> dict[str, float]:
    """How many times as long it takes without kept activations: medians over the rounds."""
    return {
        f"{what}_{clock}": round(statistics.median(row[0][what][clock] / row[views][what][clock] for row in rounds), 2)
        for what in ("run", "training")
        for clock in ("cpu", "wall")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--views", default="4", help="numbers of views, with commas")
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--methods", default="1,3", help="numbers of methods, with commas: 1 or 3")
    parser.add_argument("--set", action="append", default=[], help="a key of the recipe, as on the command line")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    views = [int(number) for number in asked.views.split(",")]
    cases = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(SCENARIO, Path(os.environ["HOMING_DATA"]), folder / "data", 0)
        for backbone in asked.backbones.split(","):
            for methods in map(int, asked.methods.split(",")):
                rounds = []
                for _ in range(asked.rounds):
                    rounds.append({})
                    for number in (0, *views):
                        rounds[-1][number] = one_run(
                            folder / "data", folder / "run", backbone, methods, number, asked.set
                        )
                        print(backbone, methods, number, rounds[-1][number], file=sys.stderr, flush=True)
                shorter = {number: ratios(rounds, number) for number in views}
                print(backbone, f"{methods} methods", shorter, flush=True)
                cases.append({"backbone": backbone, "methods": methods, "shorter": shorter, "rounds": rounds})
                if asked.json:
                    write(asked.json, cases)


def write(path: Path, cases: list[dict]) -> None:
    """Leave the cases; those of other backbones and numbers of methods stay."""
    new = [(case["backbone"], case["methods"]) for case in cases]
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    found = versions()
    content = {
        "command": "HOMING_DATA=... python benchmarks/last_stage_cost.py --rounds N --backbones NAME --methods 1,3",
        "rows": [row for row in before if (row["backbone"], row["methods"]) not in new] + cases,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, shared with other work",
        "versions": {name: found[name] for name in ("python", "torch", "timm")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
