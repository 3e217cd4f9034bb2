"""Optimizer and schedule, both timm's: `layer_decay` acts only through timm's schedulers."""

from __future__ import annotations

from typing import Any

from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from torch import nn, optim

from homing.errors import RecipeError

DEFAULT_LEARNING_RATE = {"all": 5e-4, "last_stage": 1e-3, "head": 1e-2}


def build_optimizer(
    model: nn.Module, name: str, *, learning_rate: float, weight_decay: float, layer_decay: float | None
) -> optim.Optimizer:
    """A timm optimizer over the parameters that are trained.

    Raises:
        RecipeError: timm does not know the optimizer, or its settings do not fit.
    """
    arguments: dict[str, Any] = {} if layer_decay is None else {"layer_decay": layer_decay}
    try:
        return create_optimizer_v2(model, opt=name, lr=learning_rate, weight_decay=weight_decay, **arguments)
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"training.optimizer: timm cannot make {name!r} with learning_rate {learning_rate:g}, weight_decay"
            f" {weight_decay:g}, layer_decay {layer_decay}: {error}"
        ) from error


def build_schedule(optimizer: optim.Optimizer, name: str, *, num_steps: int, warmup: float) -> Scheduler:
    """The learning rate as a pure function of the step: `schedule.step_update(step)` before each step.

    Args:
        optimizer: Its peak learning rates are those it holds now.
        name: cosine (to 1 % of the peak) or constant.
        num_steps: Of the whole run.
        warmup: Share of the steps with a linear rise.
    """
    rise = round(warmup * num_steps)
    peak = max(group["lr"] for group in optimizer.param_groups)
    shared = {"warmup_t": rise, "warmup_lr_init": peak * 0.01, "warmup_prefix": True, "t_in_epochs": False}
    if name == "constant":
        return StepLRScheduler(optimizer, decay_t=num_steps + rise + 1, decay_rate=1.0, **shared)
    return CosineLRScheduler(optimizer, t_initial=max(2, num_steps - rise), lr_min=peak * 0.01, **shared)
