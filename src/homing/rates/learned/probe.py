"""Multinomial logistic regression on frozen features, many weightings of the same rows fitted at once.

The judge compares tens of settings on several folds, and the descriptors are computed out of fold: hundreds of
probes that differ in nothing but how much each row counts. Fitting them together turns every step into two matrix
products.

Letters: N rows, D columns of features (the last one is 1, for the bias), C classes, S weightings.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-3
"""Default penalty, in units of the mean weighted loss, on features of unit mean square."""

_MEMORY = 6  # pairs that L-BFGS remembers
_SUFFICIENT_DECREASE = 1e-4
_MAX_HALVINGS = 12
_MAX_SCORES = 16_000_000  # floats in one block of scores: bounds memory, keeps blocks near the cache


def fit_probes(
    features: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    num_classes: int,
    *,
    ridge: float = RIDGE,
    start: Tensor | None = None,
    max_steps: int = 40,
    tolerance: float = 2e-3,
) -> Tensor:
    """Minimise `sum_i w_si loss_i / sum_i w_si + ridge / 2 * |W_s|^2` for every weighting s.

    L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with backtracking, run side by side over weightings in features
    scaled to unit mean square each, which conditions principal components well.

    Args:
        features: `[N, D]`, the last column constant 1; its weights are not penalised.
        labels: `[N]` int64 in `0..C-1`.
        row_weights: `[S, N]`, at least 0 and not all 0 in any row; 0 leaves a row out.
        num_classes: C.
        ridge: Penalty on squared weights.
        start: `[D, C]` or `[S, D, C]`, weights to start from; zeros where not given.
        max_steps: Steps after which every probe is taken as it stands.
        tolerance: Gradient norm, relative to the one at zero weights, below which all may stop.

    Returns:
        `[S, D, C]` weights.
    """
    width = features.shape[1]
    scale = features.square().mean(dim=0).sqrt().clamp(min=1e-6)
    penalty = ridge / scale.square()
    penalty[-1] = 0.0
    scaled = features / scale
    begin = torch.zeros(width, num_classes) if start is None else start * scale[:, None]
    begin = begin.expand(len(row_weights), width, num_classes)
    block = max(1, _MAX_SCORES // (num_classes * len(labels)))
    fitted = [
        _minimise(_Loss(scaled, labels, weights, num_classes, penalty), first, max_steps, tolerance)
        for weights, first in zip(torch.split(row_weights, block), torch.split(begin, block), strict=True)
    ]
    return torch.cat(fitted) / scale[:, None]


def log_probabilities(features: Tensor, weights: Tensor) -> Tensor:
    """Log-probability of every class: `[N, D]` features and `[S, D, C]` weights give `[S, N, C]`."""
    return (features @ weights).log_softmax(dim=-1)


def with_bias(features: Tensor) -> Tensor:
    """Features with the column of ones that `fit_probes` expects last."""
    return torch.cat([features, torch.ones(len(features), 1)], dim=1)


class _Loss:
    """Mean weighted cross entropy plus penalty of S probes, with its gradient; weights as `[S, D * C]`."""

    def __init__(
        self, features: Tensor, labels: Tensor, row_weights: Tensor, num_classes: int, penalty: Tensor
    ) -> None:
        self._features_ND = features
        self._features_DN = features.T.contiguous()
        self._labels = labels
        self._weights_SN = row_weights / row_weights.sum(dim=1, keepdim=True)
        self._num_classes = num_classes
        self._penalty_D1 = penalty[:, None]

    def __call__(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Losses `[S]` and gradients `[S, D * C]`."""
        num_probes, num_classes = len(flat), self._num_classes
        coefficients = flat.view(num_probes, -1, num_classes)
        stacked = coefficients.transpose(1, 2).reshape(num_probes * num_classes, -1)
        # Classes before rows: sums over few classes then run along contiguous rows.
        residual = (stacked @ self._features_DN).view(num_probes, num_classes, -1).softmax(dim=1)
        own_S1N = self._labels.expand(num_probes, 1, -1)
        own = residual.gather(1, own_S1N)
        losses = -own.squeeze(1).clamp(min=torch.finfo(own.dtype).tiny).log()
        residual.scatter_(1, own_S1N, own - 1).mul_(self._weights_SN[:, None])
        gradient = (residual.view(num_probes * num_classes, -1) @ self._features_ND).view(num_probes, num_classes, -1)
        shrink = self._penalty_D1 * coefficients
        value = (losses * self._weights_SN).sum(1) + 0.5 * (shrink * coefficients).sum((1, 2))
        return value, (gradient.transpose(1, 2) + shrink).reshape(num_probes, -1)


def _minimise(loss: _Loss, start: Tensor, max_steps: int, tolerance: float) -> Tensor:
    point = start.reshape(len(start), -1)
    value, gradient = loss(point)
    # At zero weights; a warm start would otherwise be asked to improve on itself.
    goal = tolerance * loss(torch.zeros_like(point))[1].norm(dim=1)
    pairs: list[tuple[Tensor, Tensor]] = []
    for _ in range(max_steps):
        if (gradient.norm(dim=1) <= goal).all():
            break
        direction = _quasi_newton_direction(gradient, pairs)
        new_point, new_value, new_gradient = _backtrack(loss, point, value, gradient, direction)
        pairs = [*pairs[-(_MEMORY - 1) :], (new_point - point, new_gradient - gradient)]
        point, value, gradient = new_point, new_value, new_gradient
    return point.view_as(start)


def _quasi_newton_direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Two-loop recursion over each probe's own pairs; a pair without curvature is passed over."""
    tiny = torch.finfo(gradient.dtype).tiny
    direction = -gradient
    taken = []
    for step, change in reversed(pairs):
        curvature = _dot(step, change)
        inverse = torch.where(curvature > 0, 1 / curvature.clamp(min=tiny), 0.0)
        share = inverse * _dot(step, direction)
        direction = direction - share * change
        taken.append((step, change, inverse, share))
    if pairs:
        step, change = pairs[-1]
        scale = _dot(step, change) / _dot(change, change).clamp(min=tiny)
        direction = direction * torch.where(scale > 0, scale, 1.0)
    for step, change, inverse, share in reversed(taken):
        direction = direction + step * (share - inverse * _dot(change, direction))
    return direction


def _backtrack(
    loss: _Loss, point: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve each probe's own step until its loss has fallen enough; one that cannot fall stays where it is."""
    slope = _dot(gradient, direction).squeeze(1)
    length = torch.ones_like(value)
    for _ in range(_MAX_HALVINGS):
        new_point = point + length[:, None] * direction
        new_value, new_gradient = loss(new_point)
        # Rounding of the value itself must not stop a probe that has arrived.
        slack = 1e-6 * value.abs()
        good = new_value <= value + _SUFFICIENT_DECREASE * length * slope + slack
        if good.all():
            return new_point, new_value, new_gradient
        length = torch.where(good, length, 0.5 * length)
    keep = good[:, None]
    return (
        torch.where(keep, new_point, point),
        torch.where(good, new_value, value),
        torch.where(keep, new_gradient, gradient),
    )


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=1, keepdim=True)
