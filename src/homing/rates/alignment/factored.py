"""Adafactor's second moment, kept as a row and a column (Shazeer and Stern, arXiv 1804.04235), of three makers.

timm's `adafactor` takes the channels of a convolution for the two dimensions, transformers' the last two; timm's
`adafactorbv` keeps both with the dimension that was averaged over, of length 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_PARTS = (("exp_avg_sq_row", "exp_avg_sq_col"), ("exp_avg_sq_r", "exp_avg_sq_c"))


def factored_moment(state: Mapping[str, Any], shape: tuple[int, ...]) -> Tensor | None:
    """The second moment that an optimizer's state stands for, of a parameter's shape; None where there is none.

    Args:
        state: Of the parameter.
        shape: Of the parameter.
    """
    for row_name, column_name in _PARTS:
        row, column = state.get(row_name), state.get(column_name)
        if isinstance(row, Tensor) and isinstance(column, Tensor):
            return _outer(row, column, shape)
    return None


def _outer(row: Tensor, column: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Row × column / mean(row): of rank one, with the means of both."""
    count = len(shape)
    for across, down in ((0, 1), (count - 2, count - 1)):
        if _fits(row, shape, down) and _fits(column, shape, across):
            row = row if row.ndim == count else row.unsqueeze(down)
            column = column if column.ndim == count else column.unsqueeze(across)
            return row / row.mean(dim=across, keepdim=True) * column
    if row.ndim == column.ndim == count:  # averaged over any two dimensions
        across = next((place for place, size in enumerate(column.shape) if size != shape[place]), 0)
        return row / row.mean(dim=across, keepdim=True) * column
    return None


def _fits(part: Tensor, shape: tuple[int, ...], averaged: int) -> bool:
    """Whether a part is a shape of which one dimension was averaged over: left out, or of length 1."""
    kept = (*shape[:averaged], *shape[averaged + 1 :])
    return tuple(part.shape) in (kept, (*shape[:averaged], 1, *shape[averaged + 1 :]))


def relative_step(group: Mapping[str, Any], state: Mapping[str, Any]) -> float:
    """What a parameter's learning rate is multiplied with: its own root mean square, where Adafactor scales by it."""
    epsilon: Any = group.get("eps")
    theirs = isinstance(epsilon, tuple) and len(epsilon) == 2  # transformers
    if not group.get("scale_parameter") or not (theirs or group.get("relative_step")):
        return 1.0
    least = epsilon[1] if theirs else group.get("eps_scale", 1e-3)
    return max(float(least), float(state.get("RMS", 1.0)))


def learning_rate(group: Mapping[str, Any]) -> float:
    """Of a group; 1 where Adafactor finds it by itself."""
    rate = group.get("lr")
    return 1.0 if rate is None or group.get("relative_step") else float(rate)


def epsilon_of(group: Mapping[str, Any]) -> float:
    """What is added to the root of the second moment, at least 1e-30."""
    epsilon = group.get("eps")
    return float((epsilon[0] if isinstance(epsilon, tuple) else epsilon) or 1e-8)
