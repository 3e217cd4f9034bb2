"""The diagonal that an optimizer multiplies gradients with, read from its own state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from homing.rates.alignment.factored import epsilon_of, factored_moment, learning_rate, relative_step

_SECOND_MOMENTS = ("max_exp_avg_sq", "exp_avg_sq", "exp_avg_var", "square_avg", "sum")
"""State entries that hold a running mean (Adagrad: sum) of squared gradients, the strictest first."""

_BIAS_CORRECTED = ("max_exp_avg_sq", "exp_avg_sq", "exp_avg_var")

_PLAIN = {"SGD", "SGDW", "SGDP", "Nesterov", "MomentumSGD", "ASGD"}
"""Optimizers that step along the gradient itself."""


class Preconditioner:
    """P in θ' = θ − η P g, for the optimizer's own P; relative learning rates of parameter groups count as part of it.

    Adam and its relatives: 1 / (√v̂ + ε); RMSprop, Adagrad, Adafactor: likewise; SGD with or without momentum: the
    identity; anything else: the identity, with a warning. A parameter that the optimizer has not stepped yet has no v̂:
    the mean square of the gradient at hand stands for it, as it would in Adam's first step.

    Args:
        optimizer: The base optimizer (wrappers with an `optimizer` attribute are looked through), or None: identity.
    """

    def __init__(self, optimizer: Optimizer | None) -> None:
        inner: Any = optimizer
        while inner is not None and hasattr(inner, "optimizer"):
            inner = inner.optimizer
        self._optimizer: Any = inner
        self._warned = False

    def apply(self, gradients: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """P times the gradient of each parameter, one after the other.

        Args:
            gradients: (parameter, as the optimizer knows it; gradient, of its shape); not written to.

        Yields:
            A tensor of the same shape, which may be the gradient itself; 0 where the optimizer does not step the
            parameter at all.
        """
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        group_of = {id(member): group for group in groups for member in group["params"]}
        largest = max(map(learning_rate, groups), default=0.0)
        for parameter, gradient in gradients:
            group = group_of.get(id(parameter))
            if self._optimizer is None:
                yield gradient
            elif group is None:
                yield torch.zeros_like(gradient)
            else:  # learning rates count relative to the largest; as 1 where a warm-up has them all at 0
                yield self._scaled(parameter, gradient, group, learning_rate(group) / largest if largest > 0 else 1.0)

    def _scaled(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any], weight: float) -> Tensor:
        state: Mapping[str, Any] = self._optimizer.state.get(parameter, {})
        moment = next((state[key] for key in _SECOND_MOMENTS if isinstance(state.get(key), Tensor)), None)
        moment = factored_moment(state, tuple(gradient.shape)) if moment is None else moment
        epsilon, weight = epsilon_of(group), weight * relative_step(group, state)
        if moment is None and not self._is_adaptive(state):
            return gradient if weight == 1.0 else gradient * weight
        if moment is None or moment.shape != gradient.shape:
            return gradient * (weight / (gradient.square().mean().sqrt() + epsilon))
        root = self._bias_correction(state, group) ** 0.5  # w g / (√m / root + ε), with one tensor of memory
        divisor = moment.sqrt().add_(epsilon * root)
        return torch.div(gradient, divisor, out=divisor).mul_(weight * root)

    def _is_adaptive(self, state: Mapping[str, Any]) -> bool:
        """Whether a parameter without a usable second moment still belongs to an optimizer that keeps one."""
        name = type(self._optimizer).__name__
        if name in _PLAIN:
            return False
        others = self._optimizer.state.values()
        kept = (*_SECOND_MOMENTS, "exp_avg_sq_row", "exp_avg_sq_r")
        if any(isinstance(other.get(key), Tensor) for other in others for key in kept):
            return True
        if not state and "betas" in self._optimizer.defaults and not any(self._optimizer.state.values()):
            return name not in {"Lion"}
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the optimizer {name} keeps no second moments that can be read, so the direction is not "
                "preconditioned: alignments are those of plain gradient steps",
                stacklevel=2,
            )
        return False

    @staticmethod
    def _bias_correction(state: Mapping[str, Any], group: Mapping[str, Any]) -> float:
        betas, step = group.get("betas"), state.get("step", group.get("step"))
        if betas is None or step is None or not any(key in state for key in _BIAS_CORRECTED):
            return 1.0
        if not group.get("bias_correction", True):
            return 1.0
        correction = 1 - float(betas[1]) ** float(step)
        return correction if correction > 0 else 1.0
