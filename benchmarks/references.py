"""Other ways to the same alignments, for tests and for people who doubt: slower, or in need of what many models lack.

All take (model, loss, inputs, labels, direction) and give aᵢ = ⟨direction, ∇ℓᵢ⟩, [batch]. `loss` maps the model's
output and the labels to one number per sample. The model should be in a mode in which a second pass repeats the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from homing.rates.alignment.forward_mode import forward_mode_level

Loss = Callable[[Any, Tensor], Tensor]


def per_sample_loop(
    model: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor, direction: Mapping[str, Tensor]
) -> Tensor:
    """Plain autograd, one backward pass per sample: the definition.

    The samples share one forward pass. (Passing them one by one is no better reference: some CPU kernels of torch take
    other paths for a batch of one.)
    """
    parameters = _named_in(model, direction)
    losses = loss(model(inputs), labels)
    rows = []
    for i in range(len(losses)):
        gradients = torch.autograd.grad(losses[i], list(parameters.values()), allow_unused=True, retain_graph=True)
        rows.append(_dot(gradients, [direction[name] for name in parameters]))
    return torch.stack(rows)


def forward_mode(
    model: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor, direction: Mapping[str, Tensor]
) -> Tensor:
    """One forward pass with dual numbers; exact. Needs a forward-mode rule for every operation in the model."""
    parameters = {name: parameter.detach() for name, parameter in _named_in(model, direction).items()}
    tangents = {name: direction[name].to(parameter.dtype) for name, parameter in parameters.items()}

    def losses(values: dict[str, Tensor]) -> Tensor:
        return loss(functional_call(model, values, (inputs,)), labels)

    with forward_mode_level():
        duals = {name: fwAD.make_dual(parameter, tangents[name]) for name, parameter in parameters.items()}  # type: ignore[no-untyped-call]
        tangent: Tensor = fwAD.unpack_dual(losses(duals)).tangent  # type: ignore[no-untyped-call]
    return tangent.detach()


def finite_difference(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    labels: Tensor,
    direction: Mapping[str, Tensor],
    step: float = 1e-5,
) -> Tensor:
    """Central difference of two forward passes, (ℓ(θ + εv) − ℓ(θ − εv)) / 2ε; the error falls as ε²."""
    parameters = {name: parameter.detach() for name, parameter in _named_in(model, direction).items()}

    def losses(epsilon: float) -> Tensor:
        moved = {name: value + epsilon * direction[name] for name, value in parameters.items()}
        with torch.no_grad():
            return loss(functional_call(model, moved, (inputs,)), labels)

    return (losses(step) - losses(-step)) / (2 * step)


def double_backward(
    model: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor, direction: Mapping[str, Tensor]
) -> Tensor:
    """Differentiate ⟨v, ∇ Σ wᵢ ℓᵢ⟩ by w, as L2RW (Ren et al., ICML 2018) does; needs a second graph."""
    parameters = _named_in(model, direction)
    with sdpa_kernel(SDPBackend.MATH):
        losses = loss(model(inputs), labels)
        weights = torch.ones_like(losses, requires_grad=True)
        gradients = torch.autograd.grad(
            (weights * losses).sum(), list(parameters.values()), create_graph=True, allow_unused=True
        )
        pull = _dot(gradients, [direction[name] for name in parameters])
        return torch.autograd.grad(pull, weights)[0]


def _named_in(model: nn.Module, direction: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad and name in direction}


def _dot(gradients: tuple[Tensor | None, ...], tangents: list[Tensor]) -> Tensor:
    products = [(g * t).sum() for g, t in zip(gradients, tangents, strict=True) if g is not None]
    return torch.stack(products).sum()
