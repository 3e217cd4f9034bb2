"""Every method of a comparison, by name: from what the scan knows to a plan of training."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from homing.evaluation.baselines import BASELINES
from homing.rates.learned.apart import even_weight
from homing.rates.learned.plan import RatePlan
from homing.training.plan import Phase, TrainingPlan

if TYPE_CHECKING:
    from homing.pools.order import Rows
    from homing.training.workbench import Workbench

NEEDS_NO_SCAN = frozenset({"source_only", "target_only", "pooled"})
SOURCE_SHARE = 0.5
"""Share of the steps of `sequential` that train on the source: fine-tuning once for each fold would cost too much."""
ONLINE = frozenset({"instance", "l2rw", "meta_weight_net"})
"""Methods that learn while the model trains."""
WEIGHED_AS_UNIFORM = ONLINE | {"uniform", "pooled_oversampled", "sequential"}
"""Methods that begin with uniform rates, so that the target's weight is judged with those."""


@dataclass(frozen=True)
class Method:
    """A method's plan for one set of target images: how to train, and what the rate model found.

    Attributes:
        name: As in the recipe.
        training: How much each row counts, phase by phase.
        rates: What was found out before training.
        seconds: Wall time of planning.
    """

    name: str
    training: TrainingPlan
    rates: RatePlan
    seconds: float = 0.0


def plan_method(name: str, bench: Workbench, target: Rows) -> Method:
    """Plan a method with these rows of the target alone.

    Args:
        name: A method or baseline of the recipe.
        bench: What all methods share.
        target: Rows of the target that the method may see, int64.
    """
    started = time.monotonic()
    rates = _rates(name, bench, target)
    apply = "weight" if name in ("l2rw", "meta_weight_net") else bench.recipe.rates.apply
    residual = "instance" if name == "hierarchical" and bench.recipe.rates.residuals else None
    online = name if name in ONLINE else residual
    if name == "sequential":
        source, nothing = torch.ones_like(rates.rates), torch.zeros_like(rates.rates)
        rest = 1 - SOURCE_SHARE
        phases = (Phase(source, 0.0, share=SOURCE_SHARE), Phase(nothing, rates.target_weight, share=rest))
        training, rates = TrainingPlan(phases, apply), replace(rates, rates=nothing)
    else:
        training = TrainingPlan((Phase(rates.rates, rates.target_weight),), apply, online=online)
    return Method(name, training, rates, time.monotonic() - started)


def _rates(name: str, bench: Workbench, target: Rows) -> RatePlan:
    """What the method knows before training; the target's weight is the recipe's, or judged on the target's folds."""
    weight, seed = bench.recipe.training.target_weight, bench.recipe.seed
    if name == "hierarchical":
        return bench.learned_rates(target, weight)
    if name in NEEDS_NO_SCAN:
        return BASELINES[name](bench.no_evidence(target), seed=seed)
    if name in WEIGHED_AS_UNIFORM:
        if weight is None and not bench.recipe.data.shares_labels:
            weight = even_weight(len(bench.problem.source), len(target))
        if weight is not None:
            return BASELINES["uniform"](bench.no_evidence(target), seed=seed, target_weight=weight)
        return BASELINES["uniform"](bench.evidence(target), seed=seed, target_weight=None)
    return BASELINES[name](bench.evidence(target), seed=seed, target_weight=weight)
