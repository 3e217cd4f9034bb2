"""Optimizer and schedule, both timm's (`layer_decay` acts only through its schedulers), and the optimizer on disk."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from torch import Tensor, nn, optim

from homing.errors import RecipeError
from homing.training.step import Settings

_LEARNING_RATES = {"all": 5e-4, "last_stage": 1e-3, "head": 3e-4}
_OF_A_RANDOM_HEAD = 1e-2


def default_learning_rate(trainable: str, head_init: str) -> float:
    """Peak of the learning rate where the recipe names none.

    A head that starts from the probe is nearly where it ends: steps of a random one's size would lose it.

    Args:
        trainable: all, last_stage or head.
        head_init: probe or random.
    """
    return _OF_A_RANDOM_HEAD if (trainable, head_init) == ("head", "random") else _LEARNING_RATES[trainable]


def optimizer_of(model: nn.Module, settings: Settings) -> optim.Optimizer:
    """A timm optimizer over the parameters that are trained.

    Raises:
        RecipeError: timm does not know the optimizer, or its settings do not fit.
    """
    name, learning_rate = settings.optimizer, settings.learning_rate
    weight_decay, layer_decay = settings.weight_decay, settings.layer_decay
    arguments: dict[str, Any] = {} if layer_decay is None else {"layer_decay": layer_decay}
    try:
        return create_optimizer_v2(model, opt=name, lr=learning_rate, weight_decay=weight_decay, **arguments)
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"training.optimizer: timm cannot make {name!r} with learning_rate {learning_rate:g}, weight_decay"
            f" {weight_decay:g}, layer_decay {layer_decay}: {error}"
        ) from error


def build_schedule(optimizer: optim.Optimizer, settings: Settings) -> Scheduler:
    """The learning rate as a pure function of the step: `schedule.step_update(step)` before each step.

    Args:
        optimizer: Its peak learning rates are those it holds now.
        settings: cosine or constant, after a linear rise over the share `warmup` of the steps. Cosine ends at 1 % of
            the peak, and at 30 % where the last weights are averaged: the mean has to lie between weights that differ.
    """
    num_steps, rise = settings.num_steps, round(settings.warmup * settings.num_steps)
    peak = max(group["lr"] for group in optimizer.param_groups)
    shared = {"warmup_t": rise, "warmup_lr_init": peak * 0.01, "warmup_prefix": True, "t_in_epochs": False}
    if settings.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=num_steps + rise + 1, decay_rate=1.0, **shared)
    last = peak * (0.3 if settings.average_last else 0.01)
    return CosineLRScheduler(optimizer, t_initial=max(2, num_steps - rise), lr_min=last, **shared)


def optimizer_to_plain(optimizer: optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and JSON values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for position, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{position}.{name}"] = value
            else:
                scalars.setdefault(str(position), {})[name] = value
    groups = [{key: value for key, value in group.items() if _is_plain(value)} for group in state["param_groups"]]
    return tensors, {"scalars": scalars, "groups": groups}


def optimizer_from_plain(optimizer: optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Undo `optimizer_to_plain` on an optimizer built the same way."""
    state: dict[int, dict[str, Any]] = {int(key): dict(values) for key, values in plain["scalars"].items()}
    for key, tensor in tensors.items():
        position, name = key.split(".", 1)
        state.setdefault(int(position), {})[name] = tensor
    groups = [
        {**now, **saved} for now, saved in zip(optimizer.state_dict()["param_groups"], plain["groups"], strict=True)
    ]
    for group in groups:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | tuple | None) and not isinstance(value, torch.Tensor)
