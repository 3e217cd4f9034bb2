"""Every method of a comparison, by name: from what the scan knows to a plan of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from homing.evaluation.baselines import BASELINES, OVERSAMPLING
from homing.rates.plan import RatePlan
from homing.training.plan import Phase, TrainingPlan

if TYPE_CHECKING:
    from homing.pools.order import Rows
    from homing.training.workbench import Workbench

NEEDS_NO_SCAN = frozenset({"uniform", "instance", "source_only", "target_only", "pooled", "sequential"})


@dataclass(frozen=True)
class Method:
    """A method's plan for one set of target images: how to train, and what the rate model found."""

    name: str
    training: TrainingPlan
    rates: RatePlan


def plan_method(name: str, bench: Workbench, target: Rows) -> Method:
    """Plan a method with these rows of the target alone.

    Args:
        name: A method or baseline of the recipe.
        bench: What all methods share.
        target: Rows of the target that the method may see, int64.
    """
    recipe = bench.recipe
    weight = recipe.training.target_weight
    ones = torch.ones(len(bench.problem.source))
    oversampling = OVERSAMPLING if weight is None else weight
    if name in ("uniform", "instance"):
        plan = RatePlan(ones, oversampling)
    elif name == "sequential":
        return _sequential(bench, oversampling)
    elif name == "hierarchical":
        plan = bench.learned_rates(target, weight)
    elif name in ("pooled_oversampled", "oracle"):
        plan = BASELINES[name](bench.evidence(target), seed=recipe.seed, target_weight=oversampling)
    elif name in NEEDS_NO_SCAN:
        plan = BASELINES[name](bench.no_evidence(target), seed=recipe.seed)
    else:
        plan = BASELINES[name](bench.evidence(target), seed=recipe.seed, target_weight=weight)
    online = name == "instance" or (name == "hierarchical" and recipe.rates.residuals)
    training = TrainingPlan((Phase(plan.rates, plan.target_weight),), recipe.rates.apply, online=online)
    return Method(name, training, plan)


def _sequential(bench: Workbench, oversampling: float) -> Method:
    """Half of the steps on the source, then half on the target."""
    count = len(bench.problem.source)
    phases = (Phase(torch.ones(count), 0.0, share=0.5), Phase(torch.zeros(count), oversampling, share=0.5))
    return Method(
        "sequential", TrainingPlan(phases, bench.recipe.rates.apply), RatePlan(torch.zeros(count), oversampling)
    )
