"""Calls that are linear in their parameters: their derivative is the call once more, with tangents for the parameters.

A batch norm in eval mode right behind a convolution is a linear map of the convolution's output, so that the two
derivatives merge into one convolution, with a weight made for both:

    y = s (W∗x + c − μ) + b,  s = w / σ:   J·V = (s V_W + A W)∗x + s V_c + A (c − μ) + V_b,  A = V_w / σ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from homing.rates.alignment.call import Call, Derivative

# Positional parameter names of the functions that are linear in (weight, bias) together.
_NORM = ("input", "normalized_shape", "weight", "bias")
_CONV = ("input", "weight", "bias")
LINEAR_IN_WEIGHTS: dict[Callable[..., Any], tuple[str, ...]] = {
    F.linear: _CONV,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (*_CONV, "stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        (*_CONV, "stride", "padding", "output_padding", "groups", "dilation"),
    ),
    F.layer_norm: (*_NORM, "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    F.embedding: ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
}
_BEFORE_NORM = {F.linear, F.conv1d, F.conv2d, F.conv3d}


def _bind(call: Call, replacements: Mapping[int, Tensor | None]) -> dict[str, Any]:
    """The arguments of a call that is linear in its weights by name, some of them replaced."""
    args, kwargs = call.arguments(replacements)
    return {**dict(zip(LINEAR_IN_WEIGHTS[call.function], args, strict=False)), **kwargs}


def linear_in_weights(call: Call) -> Derivative:
    """The rule for functions that are linear in their weight and bias: call again with the tangents for them."""
    values, moves = _values_and_moves(call)
    if moves["weight"] is None:
        moves["weight"] = torch.zeros_like(values["weight"] if values.get("weight") is not None else moves["bias"])
    return _applied(call.function, {name: moves.get(name, value) for name, value in values.items()})


def _values_and_moves(call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """A call's arguments by name; and the tangents of weight and bias, None where there is none or it is 0."""
    tangents = {i: known.tangent() for i, (_, known) in call.tracked.items() if known.tangent is not None}
    values, moved = _bind(call, {}), _bind(call, tangents)
    return values, {n: None if moved.get(n) is values.get(n) else moved[n] for n in ("weight", "bias")}


def _applied(function: Callable[..., Any], bound: dict[str, Any]) -> Derivative:
    """The function of its input alone, all other arguments bound by name."""
    weight, bias = bound["weight"], bound.get("bias")
    rest = {name: value for name, value in bound.items() if name != "input"}

    def general(data: Tensor) -> Tensor:
        result: Tensor = function(data, **rest)
        return result

    def pointwise(data: Tensor) -> Tensor:
        rows = data.permute(0, 2, 3, 1)  # a matrix product, where the channels lie together
        if not rows.is_contiguous():
            return general(data)
        return F.linear(rows, weight.flatten(1), bias).permute(0, 3, 1, 2)

    return pointwise if function is F.conv2d and _is_pointwise(bound) else general


def _is_pointwise(bound: Mapping[str, Any]) -> bool:
    once, nothing = (1, (1, 1), [1, 1]), (0, (0, 0), [0, 0], "valid")
    return (
        bound["weight"].shape[2:] == (1, 1)
        and bound.get("groups", 1) == 1
        and bound.get("stride", 1) in once
        and bound.get("padding", 0) in nothing
    )


def merges(norm: Call, before: Call, outputs: Tensor) -> bool:
    """Whether a batch norm merges with the call whose output it takes, at a gain: weights smaller than the output."""
    if norm.function is not F.batch_norm or before.function not in _BEFORE_NORM:
        return False
    if before.function is F.linear and outputs.ndim != 2:
        return False  # its channels come last, where the norm has them second
    weight = _bind(before, {})["weight"]
    return isinstance(weight, Tensor) and weight.numel() <= outputs.numel()


def linear_then_norm(call: Call, norm: Call) -> Derivative:
    """The rule for a linear call and the batch norm in eval mode behind it, by the equation above."""
    values, moves = _values_and_moves(call)
    norm_values, norm_moves = _values_and_moves(norm)
    column = (-1, *(1,) * (values["weight"].ndim - 1))
    root = (norm_values["running_var"] + norm_values.get("eps", 1e-5)).rsqrt()
    scale = root if norm_values.get("weight") is None else norm_values["weight"] * root
    weight = None if moves["weight"] is None else scale.view(column) * moves["weight"]
    bias = torch.zeros_like(scale) if moves["bias"] is None else scale * moves["bias"]
    if norm_moves["weight"] is not None:
        tilt = norm_moves["weight"] * root
        tilted = values["weight"] * tilt.view(column)
        weight = tilted if weight is None else weight.add_(tilted)
        offset = 0.0 if values.get("bias") is None else values["bias"]
        bias = bias + tilt * (offset - norm_values["running_mean"])
    if norm_moves["bias"] is not None:
        bias = bias + norm_moves["bias"]
    if weight is None:
        weight = torch.zeros_like(values["weight"])
    return _applied(call.function, {**values, "weight": weight, "bias": bias})
