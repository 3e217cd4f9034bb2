"""From what a method knows of the rows to what its fine-tuning trains on, phase by phase."""

from __future__ import annotations

import torch

from homing.methods import Method
from homing.rates.learned.plan import RatePlan
from homing.training.plan import Phase, TrainingPlan


def training_plan(
    method: Method, rates: RatePlan, *, apply: str = "sample", residuals: bool = False, doubts: bool = False
) -> TrainingPlan:
    """How a method trains by its rates.

    Args:
        method: Of the table.
        rates: What it found out before training.
        apply: sample or weight, where the method does not say.
        residuals: Whether learned rates go on to learn of single samples while the model trains.
        doubts: Whether the loss allows for labels that may be wrong, as it does where all layers are trained.
    """
    apply = method.apply or apply
    if method.source_share:
        source, nothing = torch.ones_like(rates.rates), torch.zeros_like(rates.rates)
        first = Phase(source, 0.0, share=method.source_share)
        alone = rates.target_weight or 1.0  # where nothing else counts, any weight is the same
        return TrainingPlan((first, Phase(nothing, alone, share=1 - method.source_share)), apply)
    online = "instance" if residuals and method.plans_by == "learned" and method.trains else method.online
    doubt = rates.doubt if doubts else None
    if rates.guesses is None:
        return TrainingPlan((Phase(rates.rates, rates.target_weight),), apply, online=online, doubt=doubt)
    phase = Phase(torch.cat([rates.rates, rates.guesses.rates]), rates.target_weight)
    return TrainingPlan((phase,), apply, online=online, guesses=rates.guesses.labels, doubt=doubt)
