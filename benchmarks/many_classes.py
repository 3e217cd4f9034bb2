"""`trainable: head` against a converged logistic regression, and what of clean labels is called wrong, by classes.

Two customers for each number of classes: one whose images are like the pool's, and one whose images are of another
domain, a twentieth of them hidden in the pool. All labels are right. The head is trained as the program trains it, with
homing's rates and with uniform ones; the regression has the same features and rates, and the best of several
penalties in sight of the test, which the head does not have. 7 classes are PACS, the others characters.

    HOMING_DATA=... python benchmarks/many_classes.py --cache DIR [--seeds 3] [--classes 7,17,81,200]
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from head_rates import Head, fit_head, head_scores
from rows import add_row, machine, read_rows
from scenarios import Scenario, Study, draw_study
from torch import Tensor
from torch.nn.functional import cross_entropy

from features import FeatureBank, load_bank
from homing.evaluation.baselines import pooled_oversampled
from homing.rates import learn_rates
from homing.rates.learned.blocks import HeldFeatures
from homing.rates.learned.probe import fit_probes, with_bias
from homing.training.epoch import ExpectedVisits
from homing.training.head import probe_head
from homing.training.optimizer import default_learning_rate
from homing.training.plan import Phase, num_steps_of
from homing.training.step import Settings

RESULTS = Path(__file__).parent / "results" / "many_classes.json"
RIDGES = (0.5, 0.05, 5e-3, 5e-4, 5e-5)
EPOCHS, BATCH_SIZE, NOMINAL_WEIGHT = 2.0, 32, 10
LEAST_P = 0.5  # a label is called wrong below this probability of being right
KEY = ("classes", "customer", "seed", "method")
ABOUT = {"command": "HOMING_DATA=... python benchmarks/many_classes.py --cache DIR", **machine()}


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for classes in arguments.classes:
            for customer in ("alike", "shifted"):
                _run_missing(classes, customer, seed, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned features")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["homing", "pooled"])
    parser.add_argument("--pool", type=int, default=25_000, help="pictures at most")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--classes", type=lambda text: [int(part) for part in text.split(",")], default=[7, 17, 81, 200]
    )
    return parser.parse_args()


def _run_missing(classes: int, customer: str, seed: int, arguments: argparse.Namespace) -> None:
    there = {tuple(row[part] for part in KEY) for row in read_rows(arguments.results)}
    missing = [method for method in arguments.methods if (classes, customer, seed, method) not in there]
    if not missing:
        return
    study = drawn(classes, customer, seed, arguments.cache, arguments.pool)
    for method in missing:
        began = time.perf_counter()
        learned = method == "homing"
        plan = (learn_rates if learned else pooled_oversampled)(study.evidence, seed=seed, target_weight=None)
        right = plan.right
        row = dict(zip(KEY, (classes, customer, seed, method), strict=True))
        row |= {"pool": study.evidence.num_source, "target": study.evidence.num_target, "test": len(study.test)}
        if right is not None:
            row["called_wrong"] = round(100 * float((right < LEAST_P).float().mean()), 2)
            row["phi"] = {name: round(value, 3) for name, value in plan.phi.items()}
        row |= ends(study, Phase(plan.rates.float(), plan.target_weight), seed)
        add_row(row | {"seconds": round(time.perf_counter() - began, 1)}, arguments.results, ABOUT)
        print(row, file=sys.stderr, flush=True)


def drawn(classes: int, customer: str, seed: int, cache: Path, pool: int) -> Study:
    """A customer with so many classes: five target images a class, or two where there are very many."""
    bank = load_bank("pacs", cache) if classes == 7 else load_bank("characters", cache, 64)
    bank = _with_some(bank, classes, seed)
    if classes == 7:
        target, sources = "sketch", ("photo", "cartoon", "art_painting")
    else:
        target, sources = "slanted", ("upright",)
    alike, shots = customer == "alike", 5 if classes < 200 else 2
    scenario = Scenario("", "", target, () if alike else sources, 0.6 if alike else 0.05, 0.0, shots)
    return draw_study(scenario, bank, seed, pool_size=pool)


def _with_some(bank: FeatureBank, classes: int, seed: int) -> FeatureBank:
    """The bank with some of its classes."""
    names = bank.class_names
    chosen = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[:classes].sort().values
    rows = torch.isin(bank.labels, chosen).nonzero().flatten()
    return replace(
        bank,
        features=bank.features[rows],
        labels=torch.searchsorted(chosen, bank.labels[rows]),
        domains=bank.domains[rows],
        class_names=tuple(names[number] for number in chosen.tolist()),
    )


def ends(study: Study, phase: Phase, seed: int) -> dict[str, object]:
    """Accuracy in % and nats on the test: of the head's start, of its end, of regressions by their penalties."""
    evidence = study.evidence
    features = torch.cat([evidence.source_features, evidence.target_features]).float()
    labels = torch.cat([evidence.source_labels, evidence.target_labels])
    head = Head(features.shape[1], evidence.num_classes)
    probe_head(head, HeldFeatures(features), torch.arange(len(labels)).numpy(), labels, phase, ridge=None)
    start = head_scores(head, study)
    visits = ExpectedVisits(phase.rates.numpy(), evidence.num_target, phase.target_weight, "sample")
    steps = num_steps_of(EPOCHS, None, evidence.num_source + NOMINAL_WEIGHT * evidence.num_target, BATCH_SIZE)
    settings = Settings(num_steps=steps, learning_rate=default_learning_rate("head", "probe"), seed=seed)
    fit_head(head, features, labels, visits, settings)
    masses = torch.cat([phase.rates, torch.full((evidence.num_target,), float(phase.target_weight))])
    return {"start": start, "end": head_scores(head, study), "regression": regressions(features, labels, masses, study)}


def regressions(features: Tensor, labels: Tensor, masses: Tensor, study: Study) -> dict[str, list[float]]:
    """By penalty, from strong to weak; fitted on all rows until the gradient is a thousandth of the one at zero."""
    center, classes, probes, found = features.mean(dim=0), study.evidence.num_classes, None, {}
    columns = with_bias(features - center)
    seen = with_bias(study.test_features.float() - center)
    for ridge in RIDGES:
        probes = fit_probes(
            columns, labels, masses[None], classes, ridge=ridge, start=probes, max_steps=200, tolerance=1e-3
        )
        logits = seen @ probes[0]
        right = (logits.argmax(1) == study.test_labels).float().mean()
        found[f"{ridge:g}"] = [round(100 * float(right), 2), round(float(cross_entropy(logits, study.test_labels)), 3)]
    return found


if __name__ == "__main__":
    main()
