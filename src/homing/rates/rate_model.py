"""The rate model: three shared numbers turn what is known about a row into its rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from homing.rates.descriptors import Consistency, Likeness, label_consistency, target_likeness
from homing.rates.evidence import Evidence
from homing.rates.plan import balanced_within_classes

DESCRIPTORS = ("target_likeness", "label_consistency")


@dataclass(frozen=True)
class Setting:
    """The numbers that the held-out judge decides.

    Attributes:
        target_weight: How often each target image counts.
        match_lift: Factor on the rate of a row that surely matches the target; 1 leaves all alike.
        let_go: How far rows with wrong labels are let go, 0 (not) to 1 (in proportion to their probability).
    """

    target_weight: float
    match_lift: float = 1.0
    let_go: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Names and values, for reports."""
        return asdict(self)


@dataclass(frozen=True)
class Description:
    """Both descriptors of every source row; `None` where a descriptor is switched off."""

    likeness: Likeness
    consistency: Consistency


def describe(evidence: Evidence, names: tuple[str, ...], seed: int) -> Description:
    """Compute the named descriptors from both pools; one that is not named has no influence on rates."""
    likeness = target_likeness(evidence, seed)
    neutral = torch.zeros(evidence.num_source)
    if "target_likeness" not in names:
        likeness = Likeness(likeness.log_ratio, neutral, 0.0)
    if "label_consistency" in names:
        consistency = label_consistency(evidence, likeness.match, seed)
    else:
        consistency = Consistency(neutral, torch.ones(evidence.num_source), 0.0)
    return Description(likeness, consistency)


def rates_of(settings: list[Setting], description: Description, evidence: Evidence) -> Tensor:
    """Rates of every source row under each setting.

    `r = (1 + (match_lift - 1) * P(match)) * (1 - let_go * P(label wrong))`, scaled to mean 1 within each class.

    Args:
        settings: S settings.
        description: Descriptors of the N source rows.
        evidence: Both pools, for the source's classes.

    Returns:
        `[S, N]` float32, at least 0.
    """
    lift = torch.tensor([[setting.match_lift] for setting in settings])
    let_go = torch.tensor([[setting.let_go] for setting in settings])
    matching = 1 + (lift - 1) * description.likeness.match
    keeping = 1 - let_go * (1 - description.consistency.right)
    return balanced_within_classes(matching * keeping, evidence.source_labels, evidence.num_classes)
