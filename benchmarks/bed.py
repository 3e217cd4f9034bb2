"""The targeting suite, bed: the last stage fine-tuned on cached activations of its trunk, seconds a run.

Each method plans as in a run and trains in the program's own loop, at the same steps; only the trunk's outputs are read
from a bank of a centre view and some augmented ones. Decisions rest on pairs of runs: scenario by scenario, seed by
seed. Settings are decided on seeds from 100 on; the suite reports the others. Resumable: what has its row is not done
again.

    HOMING_DATA=... python benchmarks/bed.py --cache DIR --seeds 5 --results FILE
    HOMING_DATA=... python benchmarks/bed.py --cache DIR --first-seed 100 --seeds 1 --methods hierarchical \
        --set learning_rate=5e-4 --results FILE
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from activations import ActivationBank, LastStage, backbone, load_activations
from pairs import print_pairs
from rows import add_row, machine, read_rows
from scenarios import Scenario, Study, all_scenarios, draw_study
from suite import METHODS as COMPARED
from torch import Tensor, nn
from torch.nn import functional

from homing.evaluation.baselines import BASELINES
from homing.evaluation.training_plans import training_plan
from homing.methods import METHODS
from homing.models.inputs import Visit
from homing.pools.order import Rows
from homing.recipe.schema import AVERAGE_LAST
from homing.training.branches import branch_seed, draw_to
from homing.training.fit import FitSettings, online_of
from homing.training.head import probe_head
from homing.training.loop import FineTuning
from homing.training.optimizer import default_learning_rate
from homing.training.plan import num_steps_of
from homing.training.step import Settings
from homing.unpacking import BRANCHES, NOMINAL_WEIGHT

POOL_SIZE = 1500
EPOCHS = 2.0
BATCH_SIZE = 32
KEY = ("scenario", "seed", "method")
ABOUT = {
    "command": "HOMING_DATA=... python benchmarks/bed.py --cache DIR --results FILE",
    **machine(),
    "pool": POOL_SIZE,
    "epochs": EPOCHS,
}


class StageInputs:
    """Activations by row of a study: source, then target, then test; training takes some of the views."""

    def __init__(
        self, bank: ActivationBank, rows: Tensor, views: list[int], device: torch.device | str = "cpu"
    ) -> None:
        self.bank, self.rows, self.views, self.device = bank, rows, torch.tensor(views), device

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """A view of each row of each visit, as the program takes them in turn (`homing.models.activations`)."""
        for visit in visits:
            views = self.views[torch.from_numpy((visit.copies + visit.epoch // 2) % len(self.views))]
            yield self.bank.activations[self.rows[visit.rows], views].to(self.device).float()

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """The centre view of each row."""
        return (self.bank.activations[self.rows[batch], 0].to(self.device).float() for batch in batches)


class StudyFeatures:
    """Features by row of a study."""

    def __init__(self, bank: ActivationBank, rows: Tensor) -> None:
        self.bank, self.rows_of_bank = bank, rows

    def rows(self, rows: Tensor) -> Tensor:
        """float32 [m, D]."""
        return self.bank.features[self.rows_of_bank[rows]]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    changes = dict(item.split("=", 1) for item in arguments.set)
    scenarios = [scenario for scenario in all_scenarios() if arguments.only in scenario.name]
    model, _ = backbone()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for scenario in scenarios:
            run_missing(scenario, seed, model, changes, arguments)
    print_pairs(read_rows(arguments.results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned activations")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(COMPARED))
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="that trains; the rest is the CPU's")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="of the loop, views, branches")
    return parser.parse_args()


def run_missing(
    scenario: Scenario, seed: int, model: nn.Module, changes: dict[str, str], asked: argparse.Namespace
) -> None:
    """Draw one study and add the row of each method that has none."""
    there = {(*(row[part] for part in KEY), json.dumps(row["changes"])) for row in read_rows(asked.results)}
    missing = [method for method in asked.methods if (scenario.name, seed, method, json.dumps(changes)) not in there]
    if not missing:
        return
    bank = load_activations(scenario.bank, asked.cache)
    study = draw_study(scenario, bank, seed, POOL_SIZE)
    for method in missing:
        began = time.perf_counter()
        row = dict(zip(KEY, (scenario.name, seed, method), strict=True)) | {"changes": changes}
        row |= fitted(study, bank, model, method, seed, changes, asked.device)
        add_row(
            row
            | {"seconds": round(time.perf_counter() - began, 1), "device": asked.device, "torch": torch.__version__},
            asked.results,
            ABOUT,
        )
        print(*(row[part] for part in KEY), row["accuracy"], row["nll"], file=sys.stderr, flush=True)


def fitted(
    study: Study,
    bank: ActivationBank,
    model: nn.Module,
    method: str,
    seed: int,
    changes: dict[str, str],
    device: str = "cpu",
) -> dict[str, object]:
    """Plan a method, train by the plan and look at the test once; its start is scored too.

    Training alone is on the device: the plan and the test are the CPU's.
    """
    evidence, kind = study.evidence, METHODS[method]
    planner = BASELINES[kind.plans_by if kind.plans_by != "learned" else "hierarchical"]
    plan = planner(evidence, seed=seed, target_weight=None)
    training = training_plan(kind, plan)
    rows = torch.cat([study.pool, study.target])
    labels = torch.cat([evidence.source_labels, evidence.target_labels])
    net = LastStage(model, evidence.num_classes)
    views = json.loads(changes.get("views", "[1, 2, 3, 4]"))
    accelerator = Accelerator(cpu=device == "cpu")
    inputs = StageInputs(bank, torch.cat([rows, study.test]), views, accelerator.device)
    head_phase = training.phases[-1]
    probe_head(net, StudyFeatures(bank, rows), torch.arange(len(rows)).numpy(), labels, head_phase)
    start = scores(net, study, bank)
    steps = num_steps_of(EPOCHS, None, evidence.num_source + NOMINAL_WEIGHT * evidence.num_target, BATCH_SIZE)
    mean = copy.deepcopy(net)
    for number in range(1, int(changes.get("branches", BRANCHES)) + 1):
        branch = copy.deepcopy(net).to(accelerator.device)
        settings = settings_of(steps // training.passes, branch_seed(seed, number), changes)
        online = None
        if training.online is not None:
            shared = FitSettings(trainable="last_stage")
            online = online_of(training, inputs, labels, evidence.num_classes, accelerator, settings, shared)
        FineTuning(branch, inputs, labels, training, settings, accelerator, online=online).run()
        draw_to(mean, branch.cpu(), 1 / number)
    return {**scores(mean, study, bank), **{f"start_{name}": value for name, value in start.items()}, "phi": plan.phi}


def settings_of(num_steps: int, seed: int, changes: dict[str, str]) -> Settings:
    """The program's own for a last stage, but for what is changed."""
    values = {
        "num_steps": num_steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": default_learning_rate("last_stage", "probe"),
        "average_last": AVERAGE_LAST,
        "seed": seed,
    }
    changed = {name: json.loads(value) for name, value in changes.items() if name not in ("views", "branches")}
    return Settings(**values | changed)


@torch.inference_mode()
def scores(net: nn.Module, study: Study, bank: ActivationBank) -> dict[str, float]:
    """Accuracy in percent and mean negative log-likelihood in nats, on the test."""
    net.eval()
    parts = study.test.split(256)
    logits = torch.cat([net(bank.activations[part, 0].float()) for part in parts])
    return {
        "accuracy": round(100 * float((logits.argmax(1) == study.test_labels).float().mean()), 2),
        "nll": round(float(functional.cross_entropy(logits, study.test_labels)), 4),
    }


if __name__ == "__main__":
    main()
