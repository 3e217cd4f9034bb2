"""From what a method knows of the rows to what its fine-tunings train on, phase by phase."""

from __future__ import annotations

import torch

from homing.methods import Method
from homing.rates.learned.plan import RatePlan
from homing.training.plan import Phase, TrainingPlan

MOST_SHARE, MOST_TIMES = 0.05, 3
"""Of the pool, and of the target's images: rows of the target's domain up to which hardly any counts as matching; what
is estimated where none does stays below."""


def training_plan(
    method: Method,
    rates: RatePlan,
    num_target: int,
    *,
    apply: str = "sample",
    residuals: bool = False,
    shares_labels: bool = True,
) -> TrainingPlan:
    """How a method trains by its rates.

    Args:
        method: Of the table.
        rates: What it found out before training.
        num_target: Images of the target.
        apply: sample or weight, where the method does not say.
        residuals: Whether learned rates go on to learn of single samples while the model trains.
        shares_labels: Whether source and target have the same classes.
    """
    apply = method.apply or apply
    if method.source_share:
        source, nothing = torch.ones_like(rates.rates), torch.zeros_like(rates.rates)
        first = Phase(source, 0.0, share=method.source_share)
        return TrainingPlan((first, Phase(nothing, rates.target_weight, share=1 - method.source_share)), apply)
    online = "instance" if residuals and method.plans_by == "learned" and method.trains else method.online
    if rates.guesses is not None:
        phase = Phase(torch.cat([rates.rates, rates.guesses.rates]), rates.target_weight)
        return TrainingPlan((phase,), apply, online=online, guesses=rates.guesses.labels)
    phase = Phase(rates.rates, rates.target_weight)
    ends_apart = shares_labels and online is None and method.plans_by == "learned" and not _matches(rates, num_target)
    return TrainingPlan((phase,), apply, online=online, apart=_apart(phase) if ends_apart else ())


def _matches(rates: RatePlan, num_target: int) -> bool:
    """Whether rows of the target's domain are there, so that training on them to the end is best."""
    share = rates.phi.get("match_share")
    return share is None or share > MOST_SHARE or share * len(rates.rates) > MOST_TIMES * num_target


def _apart(phase: Phase) -> tuple[Phase, Phase]:
    """Half of the steps without the target, half with nothing else.

    Where nothing in the pool matches, that is about as good as learned rates to the end, each in customers of its own,
    and the mean of their weights is better than that of two of a kind (docs/decisions/training.md).
    """
    return Phase(phase.rates, 0.0, 0.5), Phase(torch.zeros_like(phase.rates), phase.target_weight, 0.5)
