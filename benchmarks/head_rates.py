"""How fast should a head be trained that starts from the probe? Several learning rates against the start itself.

For each scenario and seed the head of `trainable: head` is trained on frozen features as the program does: its start,
optimizer, schedule and order of visits, under homing's rates and under uniform ones. Seeds start at 100: rules are not
chosen on the draws that the suite reports.

    HOMING_DATA=... python benchmarks/head_rates.py --cache DIR [--seeds 1] [--epochs 2] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev

import torch
from scenarios import Study, all_scenarios, draw_study
from torch import Tensor, nn
from torch.nn import functional

from features import load_bank
from homing.evaluation.baselines import pooled_oversampled
from homing.rates import learn_rates
from homing.rates.learned.blocks import HeldFeatures
from homing.training.epoch import ExpectedVisits, draw_counts, open_epoch
from homing.training.head import probe_head
from homing.training.optimizer import build_schedule, optimizer_of
from homing.training.plan import Phase, num_steps_of
from homing.training.step import Settings

FIRST_SEED = 100
LEARNING_RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
Scores = tuple[float, float]
"""Accuracy in percent, and mean negative log-likelihood in nats."""


class Head(nn.Module):
    """A timm model of which nothing but the head is left."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def get_classifier(self) -> nn.Linear:
        """As timm's models have it."""
        return self.fc

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features."""
        return self.fc(features)


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Scores]]] = {"homing": [], "pooled": []}
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for scenario in all_scenarios():
            study = draw_study(scenario, load_bank(scenario.bank, arguments.cache), seed)
            evidence = study.evidence
            plans = {
                "homing": learn_rates(evidence, seed=seed),
                "pooled": pooled_oversampled(evidence, seed=seed, target_weight=None),
            }
            for name, plan in plans.items():
                phase = Phase(plan.rates.float(), plan.target_weight)
                found[name].append(_trained(study, phase, arguments.epochs, seed))
                print(scenario.name, seed, name, found[name][-1], file=sys.stderr, flush=True)
    tables = {name: _table(rows) for name, rows in found.items()}
    for name, table in tables.items():
        print(f"{name}: against its start, over scenarios and seeds")
        for rate, row in table.items():
            print(f"{rate:>8s} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({"epochs": arguments.epochs, **tables}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


def _trained(study: Study, phase: Phase, epochs: float, seed: int) -> dict[str, Scores]:
    """Scores of the start and of each learning rate."""
    evidence = study.evidence
    features = torch.cat([evidence.source_features, evidence.target_features]).float()
    labels = torch.cat([evidence.source_labels, evidence.target_labels])
    visits = ExpectedVisits(phase.rates.numpy(), evidence.num_target, phase.target_weight, "sample")
    steps = num_steps_of(epochs, None, len(evidence.source_labels) + 10 * evidence.num_target, 32)
    start = Head(features.shape[1], evidence.num_classes)
    probe_head(start, HeldFeatures(features), torch.arange(len(labels)).numpy(), labels, phase)
    found = {"start": head_scores(start, study)}
    for rate in LEARNING_RATES:
        settings = Settings(num_steps=steps, learning_rate=rate, seed=seed)
        head = Head(features.shape[1], evidence.num_classes)
        head.load_state_dict(start.state_dict())
        fit_head(head, features, labels, visits, settings)
        found[f"{rate:g}"] = head_scores(head, study)
    return found


def fit_head(head: Head, features: Tensor, labels: Tensor, visits: ExpectedVisits, settings: Settings) -> None:
    optimizer = optimizer_of(head, settings)
    schedule = build_schedule(optimizer, settings)
    step, number = 0, 0
    while step < settings.num_steps:
        counts = draw_counts(visits, number, seed=settings.seed)
        epoch = open_epoch(counts, number, batch_size=settings.batch_size, seed=settings.seed)
        for batch in epoch.batches(0, settings.num_steps - step, accumulate=1, rank=0, num_ranks=1):
            schedule.step_update(step)
            rows = torch.from_numpy(batch.rows)
            optimizer.zero_grad()
            functional.cross_entropy(head(features[rows]), labels[rows]).backward()
            optimizer.step()
            step += 1
        number += 1


@torch.no_grad()
def head_scores(head: Head, study: Study) -> Scores:
    logits = head(study.test_features.float())
    right = (logits.argmax(1) == study.test_labels).float().mean()
    return round(100 * float(right), 2), round(float(functional.cross_entropy(logits, study.test_labels)), 3)


def _table(rows: list[dict[str, Scores]]) -> dict[str, dict[str, float]]:
    table = {}
    for name in rows[0]:
        gains = [row[name][0] - row["start"][0] for row in rows]
        table[name] = {
            "accuracy": round(mean(row[name][0] for row in rows), 2),
            "nll": round(mean(row[name][1] for row in rows), 3),
            "gain": round(mean(gains), 2),
            "standard_error": round(stdev(gains) / len(gains) ** 0.5, 2) if len(gains) > 1 else 0.0,
            "worst": round(min(gains), 2),
            "n": len(gains),
        }
    return table


if __name__ == "__main__":
    main()
