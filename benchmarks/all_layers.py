"""The targeting suite with all layers trained, on small pictures: half a minute a run, to decide settings by pairs.

The suite's studies with fewer images (pools of 1,000, 600 of the test), planned and trained by the program's own loop;
the settings that are compared start from one plan and one probe. Decided on seeds from 100 on. Resumable.

    HOMING_DATA=... python benchmarks/all_layers.py --cache DIR --only "needle 0.1 noise 0.4" --first-seed 100 \
        --settings '{}' '{"average_last": 0}' '{"learning_rate": 2e-4}'
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from activations import AUGMENTATION, canvas_of
from rows import add_row, machine, read_rows
from scenarios import Scenario, all_scenarios, draw_study
from torch import Tensor, nn
from torch.nn import functional

from features import COLLECTIONS, FeatureBank
from homing.evaluation.baselines import BASELINES
from homing.evaluation.training_plans import training_plan
from homing.methods import METHODS
from homing.models.backbone import Preprocessing, build_model
from homing.models.inputs import Visit
from homing.pools.augmentation import crop
from homing.pools.order import Rows
from homing.rates.learned.blocks import ArrayFeatures
from homing.recipe.schema import AVERAGE_LAST
from homing.training.head import probe_head
from homing.training.loop import FineTuning
from homing.training.optimizer import default_learning_rate
from homing.training.plan import num_steps_of
from homing.training.step import Settings
from homing.unpacking import NOMINAL_WEIGHT

RESULTS = Path(__file__).parent / "results" / "all_layers.json"
BACKBONE, SIZE, COLLECTED = "tf_efficientnet_lite0", 64, ("pacs", "digits")
POOL_SIZE, TEST_SIZE, EPOCHS, BATCH_SIZE = 1000, 600, 2.0, 32
KEY = ("scenario", "seed", "method")
ABOUT = {
    "command": "HOMING_DATA=... python benchmarks/all_layers.py --cache DIR",
    **machine(),
    "backbone": BACKBONE,
    "size": SIZE,
    "pool": POOL_SIZE,
    "epochs": EPOCHS,
}


class Pictures:
    """Some canvases of a collection: [m, side, side, 3], the rows of a study."""

    def __init__(self, canvases: Tensor, preprocessing: Preprocessing, seed: int) -> None:
        self.canvases, self.preprocessing, self.seed = canvases, preprocessing, seed

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """Augmented views, as the program draws them."""
        for visit in visits:
            drawn = torch.from_numpy(AUGMENTATION.draw(self.seed, visit.epoch, visit.rows, visit.copies))
            yield self._normal(crop(self._pixels(visit.rows), drawn, self.preprocessing.size))

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """The centre of each row."""
        return (self._normal(self.preprocessing.center(self._pixels(rows))) for rows in batches)

    def _pixels(self, rows: Rows) -> Tensor:
        return self.canvases[torch.as_tensor(rows)].permute(0, 3, 1, 2).float() / 255

    def _normal(self, pixels: Tensor) -> Tensor:
        return self.preprocessing.normalize(pixels).contiguous(memory_format=torch.channels_last)


class Start:
    """One study, planned by a method, and its model as the probe leaves it."""

    def __init__(self, scenario: Scenario, seed: int, method: str, collection: dict[str, Any]) -> None:
        names = {key: collection[key] for key in ("labels", "domains", "class_names", "domain_names")}
        study = draw_study(scenario, FeatureBank(torch.zeros(len(names["labels"]), 1), **names), seed, POOL_SIZE)
        self.model, preprocessing, _ = build_model(
            BACKBONE, "bundled", num_classes=study.evidence.num_classes, image_size=SIZE, seed=0
        )
        self.model.to(memory_format=torch.channels_last)
        n, known = len(study.pool), len(study.pool) + len(study.target)
        rows = torch.cat([study.pool, study.target, study.test[:TEST_SIZE]])
        self.pictures = Pictures(collection["canvases"][rows], preprocessing, seed)
        self.test, self.answers = torch.arange(known, len(rows)), study.test_labels[:TEST_SIZE]
        features = self._features(known)
        evidence = replace(study.evidence, source_features=features[:n], target_features=features[n:])
        kind, self.seed = METHODS[method], seed
        planner = BASELINES[kind.plans_by if kind.plans_by != "learned" else "hierarchical"]
        rates = planner(evidence, seed=seed, target_weight=None)
        self.plans = {doubts: training_plan(kind, rates, doubts=doubts) for doubts in (True, False)}
        self.labels = torch.cat([evidence.source_labels, evidence.target_labels])
        probe_head(self.model, ArrayFeatures(features), np.arange(known), self.labels, self.plans[True].phases[-1])
        self.steps = num_steps_of(EPOCHS, None, n + NOMINAL_WEIGHT * (known - n), BATCH_SIZE) // self.plans[True].passes

    def fine_tuned(self, changes: dict[str, Any]) -> dict[str, float]:
        """Scores of the start, and of a training with these settings instead of the program's own.

        `doubts`: whether the loss allows for labels that may be wrong.
        """
        plan = self.plans[changes.get("doubts", True)]
        model, own = copy.deepcopy(self.model), {"average_last": AVERAGE_LAST, "seed": self.seed}
        own |= {
            "num_steps": self.steps,
            "batch_size": BATCH_SIZE,
            "learning_rate": default_learning_rate("all", "probe"),
        }
        start = {f"start_{name}": value for name, value in self._scores(model).items()}
        settings = Settings(**own | {name: value for name, value in changes.items() if name != "doubts"})
        FineTuning(model, self.pictures, self.labels, plan, settings, Accelerator(cpu=True)).run()
        return self._scores(model) | start

    @torch.inference_mode()
    def _features(self, count: int) -> Tensor:
        batches = self.pictures.evaluating(torch.arange(count).split(64))
        model = self.model.eval()
        return torch.cat(
            [model.forward_head(model.forward_features(batch), pre_logits=True) for batch in batches]
        ).clone()

    @torch.inference_mode()
    def _scores(self, model: nn.Module) -> dict[str, float]:
        model.eval()
        logits = torch.cat([model(batch) for batch in self.pictures.evaluating(self.test.split(128))])
        return {
            "accuracy": round(100 * float((logits.argmax(1) == self.answers).float().mean()), 2),
            "nll": round(float(functional.cross_entropy(logits, self.answers)), 4),
        }


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    settings = [json.loads(text) for text in arguments.settings]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for scenario in all_scenarios():
            if scenario.bank in COLLECTED and arguments.only in scenario.name:
                for method in arguments.methods:
                    run_missing(scenario, seed, method, settings, arguments.cache, arguments.results)
    _print_pairs(read_rows(arguments.results))


def run_missing(
    scenario: Scenario, seed: int, method: str, settings: list[dict[str, Any]], cache: Path, results: Path
) -> None:
    """Train what has no row yet."""
    name = (scenario.name, seed, method)
    there = {json.dumps(row["changes"]) for row in read_rows(results) if tuple(row[part] for part in KEY) == name}
    missing = [changes for changes in settings if json.dumps(changes) not in there]
    if not missing:
        return
    start = Start(scenario, seed, method, _collected(scenario.bank, cache))
    for changes in missing:
        began = time.perf_counter()
        row = {**dict(zip(KEY, name, strict=True)), "changes": changes, **start.fine_tuned(changes)}
        add_row(row | {"seconds": round(time.perf_counter() - began, 1)}, results, ABOUT)
        print(*name, json.dumps(changes), row["accuracy"], row["nll"], file=sys.stderr, flush=True)


def _collected(name: str, cache: Path) -> dict[str, Any]:
    """Canvases of a collection, decoded once: uint8 [M, side, side, 3], with labels and domains."""
    side = round(SIZE / 0.875)
    path = cache / f"{name}-canvas-{side}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        rows = [(torch.from_numpy(canvas_of(image, side).copy()), *words) for image, *words in COLLECTIONS[name]()]
        canvases, labels, domains = zip(*rows, strict=True)
        class_names, domain_names = sorted(set(labels)), sorted(set(domains))
        torch.save(
            {
                "canvases": torch.stack(canvases),
                "labels": torch.tensor([class_names.index(label) for label in labels]),
                "domains": torch.tensor([domain_names.index(domain) for domain in domains]),
                "class_names": tuple(class_names),
                "domain_names": tuple(domain_names),
            },
            path,
        )
    return torch.load(path, weights_only=True, mmap=True)


def _print_pairs(rows: list[dict[str, Any]]) -> None:
    """What each change brings against the same run without it, pair by pair."""
    found = {(*(row[part] for part in KEY), json.dumps(row["changes"])): row for row in rows}
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        for name, value in row["changes"].items():
            others = {other: kept for other, kept in row["changes"].items() if other != name}
            without = found.get((*(row[part] for part in KEY), json.dumps(others)))
            if without is not None:
                beside = {other: kept for other, kept in others.items() if other != "doubts"}
                pairs[f"{name}={value}" + (f" beside {beside}" if beside else "")].append((row, without))
    for change, both in pairs.items():
        for key in ("accuracy", "nll") if len(both) > 1 else ():
            apart = [one[key] - other[key] for one, other in both]
            error = statistics.stdev(apart) / len(apart) ** 0.5
            print(
                f"{change} {key}: {statistics.mean(apart):+.3f} ± {error:.3f} ({min(apart):+.2f} to {max(apart):+.2f})"
                f" n = {len(apart)}"
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for decoded pictures")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["hierarchical"])
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--settings", nargs="+", default=["{}"], metavar="JSON", help="of the loop, to change")
    return parser.parse_args()


if __name__ == "__main__":
    main()
