"""Guesses of unlabelled images on frozen features: right as often as they say, foreign images, and what to label next.

Each study takes 300 images of the target domain as unlabelled, alone and beside 300 foreign ones: of domains that
are in the source, and of one that nobody has seen. Accuracies are those of a probe on the rest of the domain, trained
on source and target by the learned rates, and on what is told of the unlabelled images.

    HOMING_DATA=... python benchmarks/unlabelled.py --cache DIR [--seeds 5] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import torch
from scenarios import Scenario, draw_study
from torch import Tensor

from features import FeatureBank, load_bank
from homing.rates import Evidence
from homing.rates.learned.guesses import guess_labels
from homing.rates.learned.learner import WIDTH, learn_rates
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias
from homing.rates.learned.wanted import WANTED, wanted_labels

UNLABELLED, RIDGE, DRAWS = 300, 0.2, 5
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
Row = dict[str, float | str | int]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    bank, rows = load_bank("pacs", arguments.cache), []
    for seed in range(arguments.seeds):
        for target in DOMAINS:
            for needle, noise in ((0.0, 0.0), (0.1, 0.2)):
                found = _study(bank, target, needle, noise, seed)
                rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()})
                print(json.dumps(rows[-1]), file=sys.stderr)
    print(f"{len(rows)} studies")
    for key in (key for key, value in rows[0].items() if isinstance(value, float)):
        values = [float(row[key]) for row in rows]
        error = stdev(values) / len(values) ** 0.5
        print(f"{key:28s} {mean(values):7.2f} ± {error:.2f}  from {min(values):.2f} to {max(values):.2f}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


def _study(bank: FeatureBank, target: str, needle: float, noise: float, seed: int) -> Row:
    near, far, unseen = (domain for domain in DOMAINS if domain != target)
    generator = torch.Generator().manual_seed(seed)
    study = draw_study(Scenario("", "pacs", target, (near, far), needle, noise), bank, seed)
    order = torch.randperm(len(study.test_labels), generator=generator)
    mine, test = order[:UNLABELLED], order[UNLABELLED:]
    evidence, plan = study.evidence, learn_rates(study.evidence, seed=seed)
    projection, weight = evidence.projection(WIDTH), plan.target_weight
    features, truth = study.test_features[mine], study.test_labels[mine]
    accuracy = _accuracy_of(
        evidence.projected_by(projection),
        plan.rates,
        weight,
        projection(study.test_features[test]),
        study.test_labels[test],
    )
    guess = lambda images: guess_labels(evidence, plan.rates, weight, images, projection=projection, seed=seed)  # noqa: E731
    found, ours, full = guess(features), accuracy(None), torch.full((UNLABELLED,), weight)
    row: Row = {"target": target, "needle": needle == 0.1, "noise": noise == 0.2, "seed": seed}
    row |= {
        "guesses right, %": 100 * float((found.labels == truth).float().mean()),
        "right by their word, %": 100 * float(found.right.mean()),
        "of the domain, %": 100 * float(found.match.mean()),
        "+ guesses": accuracy((projection(features), found.labels, found.rates)) - ours,
        "+ true labels": accuracy((projection(features), truth, full)) - ours,
    }
    for name, domains in (("like the source", (near, far)), ("unseen", (unseen,))):
        others = bank.rows_of(*domains)
        foreign = bank.features[others[torch.randperm(len(others), generator=generator)[:UNLABELLED]]]
        both = torch.cat([features, foreign])
        mixed = guess(both)
        row |= {
            f"{name}: of the domain, %": 100 * float(mixed.match[:UNLABELLED].mean()),
            f"{name}: foreign, %": 100 * float(mixed.match[UNLABELLED:].mean()),
            f"{name}: + guesses": accuracy((projection(both), mixed.labels, mixed.rates)) - ours,
        }
    label = lambda rows: accuracy((projection(features[rows]), truth[rows], full[rows])) - ours  # noqa: E731
    wanted = torch.tensor([place for place, _ in wanted_labels(found, features, projection, seed=seed)])
    least_sure = found.right.argsort()[:WANTED]
    by_chance = mean(label(torch.randperm(UNLABELLED, generator=generator)[:WANTED]) for _ in range(DRAWS))
    row |= {"+ 20 labels by chance": by_chance, "+ 20 least sure": label(least_sure)}
    return row | {"+ 20 wanted": label(wanted), "wanted - chance": label(wanted) - by_chance}


def _accuracy_of(
    evidence: Evidence, rates: Tensor, weight: float, test: Tensor, labels: Tensor
) -> Callable[[tuple[Tensor, Tensor, Tensor] | None], float]:
    """Accuracy in % of a probe of both pools and some more rows: features, labels and masses."""

    def accuracy(more: tuple[Tensor, Tensor, Tensor] | None) -> float:
        parts = [
            (evidence.held, evidence.source_labels, rates),
            (evidence.target_features, evidence.target_labels, torch.full((evidence.num_target,), weight)),
            *([] if more is None else [more]),
        ]
        features, known, masses = (torch.cat(part) for part in zip(*parts, strict=True))
        probe = fit_probes(with_bias(features), known, masses[None], evidence.num_classes, ridge=RIDGE)[0]
        return 100 * float((log_probabilities(with_bias(test), probe).argmax(dim=1) == labels).float().mean())

    return accuracy


if __name__ == "__main__":
    main()
