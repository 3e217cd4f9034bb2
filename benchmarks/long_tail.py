"""Long-tailed pools: are wrong labels found where some classes have few rows, and none where labels are right?

Pools of the fast tier, thinned class by class so that the rarest keeps a fiftieth of its rows; labels are then right,
or wrong in a share of the rows: drawn alike from all other classes, or as often as labels occur. A row says how many
labels are called wrong, how well wrong ones are told, and what probes on the rates reach. Resumable row by row; rows of
several commits may lie in one file.

    HOMING_DATA=... python benchmarks/long_tail.py --cache DIR [--first-seed 100] [--seeds 1]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rows import add_row, machine, read_rows
from scenarios import Scenario, Study, draw_study
from sklearn.metrics import roc_auc_score
from suite import accuracy_of, linear_probe, mlp_probe, reduced
from suite_runs import ROOT, commit_of
from torch import Tensor

from features import load_bank
from homing.rates import learn_rates

RESULTS = Path(__file__).parent / "results" / "long_tail.json"
PACS = ("art_painting", "cartoon", "photo", "sketch")
POOLS = [("pacs", target, tuple(domain for domain in PACS if domain != target)) for target in PACS]
POOLS += [("digits", "usps", ("mnist", "mnist_m")), ("digits", "mnist", ("usps",))]
WRONG = ((0.0, "none"), (0.2, "as frequent"), (0.4, "as frequent"), (0.4, "alike"))
TAIL = 0.02  # of its rows that the rarest class keeps
KEY = ("code", "target", "needle", "noise", "wrong", "seed")
ABOUT = {"command": "HOMING_DATA=... python benchmarks/long_tail.py --cache DIR", **machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned features")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    code = commit_of(ROOT)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for bank, target, sources in POOLS:
            for needle in (0.0, 0.1):
                for noise, wrong in WRONG:
                    key = dict(zip(KEY, (code, target, needle, noise, wrong, seed), strict=True))
                    if any(key.items() <= row.items() for row in read_rows(arguments.results)):
                        continue
                    drawn = draw_study(
                        Scenario(target, bank, target, sources, needle, 0.0), load_bank(bank, arguments.cache), seed
                    )
                    row = key | row_of(with_long_tail(drawn, noise, wrong, seed), seed)
                    add_row(row, arguments.results, ABOUT)
                    print(row, flush=True)


def with_long_tail(study: Study, noise: float, wrong: str, seed: int) -> Study:
    """The study with classes that have from all of their rows to `TAIL` of them, two at least, and wrong labels."""
    evidence, generator = study.evidence, torch.Generator().manual_seed(seed)
    kept_share = torch.logspace(0, torch.tensor(TAIL).log10().item(), evidence.num_classes)
    kept_share = kept_share[torch.randperm(evidence.num_classes, generator=generator)]
    kept = torch.rand(evidence.num_source, generator=generator) < kept_share[evidence.source_labels]
    for number in range(evidence.num_classes):
        kept[(evidence.source_labels == number).nonzero().flatten()[:2]] = True
    right = evidence.source_labels[kept]
    labels = labels_in_part_wrong(right, evidence.num_classes, noise, wrong, generator)
    assert evidence.matches is not None
    thinned = replace(
        evidence,
        source_features=evidence.source_features[kept],
        source_labels=labels,
        matches=evidence.matches[kept],
        clean=labels == right,
    )
    return replace(study, evidence=thinned)


def labels_in_part_wrong(
    labels: Tensor, num_classes: int, noise: float, wrong: str, generator: torch.Generator
) -> Tensor:
    """A share of the labels is another one; where these are as frequent as labels are, some stay what they were."""
    changes = torch.rand(len(labels), generator=generator) < noise
    others = (labels + torch.randint(1, num_classes, (len(labels),), generator=generator)) % num_classes
    if wrong == "as frequent":
        others = labels[torch.randperm(len(labels), generator=generator)]
    return torch.where(changes, others, labels)


def row_of(study: Study, seed: int) -> dict[str, float | int | None]:
    """What is found of the labels, and what probes on the rates reach."""
    study = reduced(study)
    evidence, plan = study.evidence, learn_rates(study.evidence, seed=seed)
    assert plan.right is not None
    assert evidence.clean is not None
    probes = {
        "accuracy": linear_probe(evidence, plan, study.test_features),
        "accuracy_mlp": mlp_probe(evidence, plan, study.test_features, seed),
    }
    is_noisy = not bool(evidence.clean.all())
    return {
        "num_source": evidence.num_source,
        "rarest": int(torch.bincount(evidence.source_labels, minlength=evidence.num_classes).min()),
        "truly_wrong": round(float((~evidence.clean).float().mean()), 4),
        "called_wrong": round(float((plan.right < 0.5).float().mean()), 4),
        "auroc": round(float(roc_auc_score(evidence.clean, plan.right)), 4) if is_noisy else None,
        **{name: round(accuracy_of(found, study.test_labels), 2) for name, found in probes.items()},
    }


if __name__ == "__main__":
    main()
