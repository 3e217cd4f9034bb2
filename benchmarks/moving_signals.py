"""What alignments say while a model trains under the static rates, for `moving_rates.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from moving_designs import TEST_GUIDE, Static, bins, mean_by
from torch import Tensor

if TYPE_CHECKING:
    from moving_rates import Run


class Signals(Static):
    """Moves nothing: notes what alignments say under the static rates, at the first and the last move.

    Of rows, of groups, and of two guides, the target (trained on) and the test: how far halves of the target agree, and
    the target with the test (correlations), which share of the variance lies between groups, and how well they tell
    right labels and matches (AUROC), beside what the static rates are made of.
    """

    def start(self, run: Run) -> None:
        """Before the first step."""
        self.signals: list[dict[str, float | None]] = []

    def move(self, run: Run, number: int) -> None:
        """At the `number`-th of the steps at which rates may move."""
        if number not in (0, run.num_moves - 1):
            return
        case, groups, found = run.case, bins(run.case, by_class=False), {}
        images, labels = case.target
        guides = {"target": case.target, "test": tuple(part[TEST_GUIDE] for part in case.test)}
        guides |= {f"half {half}": (images[case.half == half], labels[case.half == half]) for half in (True, False)}
        everyone, own = torch.ones(case.num_source), case.source_labels
        for name, guide in guides.items():
            values = run.alignments(run.downhill(*guide), everyone > 0)
            found[name] = values - mean_by(own, values, everyone)[own]
        means = {name: mean_by(groups, values, everyone)[groups] for name, values in found.items()}
        evidence, plan = case.study.evidence, case.plan
        clean, matches = evidence.clean, evidence.matches
        signals = {"static, clean": auroc(plan.right, clean)}
        signals["static, matches"] = auroc(plan.descriptors["target_likeness"], matches)
        for what, values in (("rows", found), ("groups", means)):
            signals[f"{what}, halves agree"] = correlation(values["half True"], values["half False"])
            signals[f"{what}, target and test"] = correlation(values["target"], values["test"])
            for guide in ("target", "test"):
                signals[f"{what}, {guide}, clean"] = auroc(values[guide], clean)
                signals[f"{what}, {guide}, matches"] = auroc(values[guide], matches)
        signals["share of variance between groups, target"] = round(
            float(means["target"].var() / found["target"].var()), 3
        )
        signals["share of variance between groups, test"] = round(float(means["test"].var() / found["test"].var()), 3)
        self.signals.append(signals)


def correlation(first: Tensor, second: Tensor) -> float:
    """Of two lists `[N]`."""
    return round(float(torch.corrcoef(torch.stack([first, second]))[0, 1]), 3)


def auroc(values: Tensor, truth: Tensor) -> float | None:
    """How well values `[N]` tell what is true, ties counting half; None where nothing is to be told."""
    if truth.all() or not truth.any():
        return None
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count - 1) / 2)[place].double()
    num_true = int(truth.sum())
    above = rank[truth].sum() - num_true * (num_true + 1) / 2
    return round(float(above / (num_true * (len(truth) - num_true))), 3)
