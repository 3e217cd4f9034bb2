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
        let_go: Power of the probability that a row's label is right; 0 leaves all alike. Above 1, because a wrong
            label costs more than a right one adds.
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


def describe(evidence: Evidence, names: tuple[str, ...], pool: Consistency, seed: int) -> Description:
    """Compute the named descriptors from both pools; one that is not named has no influence on rates.

    Args:
        evidence: Both pools, the target being what may be seen of it.
        names: Out of `DESCRIPTORS`.
        pool: What the pool alone tells of its labels, from `pool_consistency`; the same for every fold.
        seed: Seed of the cross-fits.
    """
    likeness = target_likeness(evidence, seed)
    neutral = torch.zeros(evidence.num_source)
    if "target_likeness" not in names:
        likeness = Likeness(likeness.log_ratio, neutral, 0.0)
    if "label_consistency" in names:
        consistency = label_consistency(evidence, likeness.match, pool, seed)
    else:
        consistency = Consistency(neutral, torch.ones(evidence.num_source), 0.0)
    return Description(likeness, consistency)


def rates_of(settings: list[Setting], description: Description, evidence: Evidence) -> Tensor:
    """Rates of every source row under each setting.

    `r = (1 + (match_lift - 1) * P(match)) * P(label right) ** let_go`, scaled to mean 1 within each class.

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
    keeping = description.consistency.right**let_go
    return balanced_within_classes(matching * keeping, evidence.source_labels, evidence.num_classes)
