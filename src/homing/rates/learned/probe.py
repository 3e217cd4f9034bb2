"""Multinomial logistic regression on frozen features, many weightings of the same rows fitted at once.

The judge compares tens of settings on several folds, and the descriptors are computed out of fold: hundreds of
probes that differ in nothing but how much each row counts. Fitting them together turns every step into two matrix
products.

Letters: N rows, D columns of features (the last one is 1, for the bias), C classes, S weightings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from homing.rates.learned.blocks import slices
from homing.rates.learned.work import ALONE, Work

RIDGE = 1e-3
"""Default penalty, in units of the mean weighted loss, on features of unit mean square."""

_MEMORY = 6  # pairs that L-BFGS remembers
_SUFFICIENT_DECREASE = 1e-4
_MAX_HALVINGS = 12
_MAX_SCORES = 16_000_000  # floats of scores that are fitted side by side
_BLOCK_SCORES = 1_000_000  # floats of scores at a time: keeps blocks in the cache, and memory flat
_FEW_CLASSES = 32


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
    work: Work = ALONE,
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
        work: Told of at every step; its device does the steps.

    Returns:
        `[S, D, C]` weights.
    """
    width = features.shape[1]
    # A column bends the loss by about its square / C, and by its penalty: scaled by both, all are bent alike. With the
    # square alone, one that hardly moves would be bent so much that no step of the line search is short enough.
    squares = features.square().mean(dim=0)
    squares[:-1] += ridge * num_classes
    scale = squares.sqrt().clamp(min=1e-6)
    penalty = ridge / scale.square()
    penalty[-1] = 0.0
    begin = torch.zeros(width, num_classes) if start is None else start * scale[:, None]
    begin = begin.expand(len(row_weights), width, num_classes)
    side_by_side = max(1, _MAX_SCORES // (num_classes * len(labels)))
    scaled = (features / scale).to(work.device)
    fitted = []
    for first in range(0, len(row_weights), side_by_side):
        part = slice(first, first + side_by_side)
        stretch = work.part(first / len(row_weights), min(1.0, (first + side_by_side) / len(row_weights)))
        loss = _loss_of(scaled, labels, row_weights[part], num_classes, penalty, work.device)
        found = _minimise(loss, begin[part].to(work.device), max_steps, tolerance, stretch)
        fitted.append(found.cpu())
    return torch.cat(fitted) / scale[:, None]


def log_probabilities(features: Tensor, weights: Tensor) -> Tensor:
    """Log-probability of every class: `[N, D]` features and `[S, D, C]` weights give `[S, N, C]`."""
    return (features @ weights).log_softmax(dim=-1)


def with_bias(features: Tensor) -> Tensor:
    """Features with the column of ones that `fit_probes` expects last."""
    return torch.cat([features, torch.ones(len(features), 1)], dim=1)


def _loss_of(
    scaled: Tensor, labels: Tensor, weights: Tensor, num_classes: int, penalty: Tensor, device: torch.device
) -> _Loss:
    """Rows that count in none of the weightings are left out, where that saves work."""
    shares = (weights / weights.sum(dim=1, keepdim=True, dtype=torch.float64)).float()
    if len(weights) == 1:
        kept = (weights[0] > 0).nonzero().flatten()
        if len(kept) < 0.9 * len(labels):
            scaled, labels, shares = scaled[kept.to(device)], labels[kept], shares[:, kept]
    return _Loss(scaled, labels.to(device), shares.to(device), num_classes, penalty[:, None].to(device))


class _Loss:
    """Mean weighted cross entropy plus penalty of S probes, with its gradient; weights as `[S, D * C]`."""

    def __init__(self, features: Tensor, labels: Tensor, shares: Tensor, num_classes: int, penalty: Tensor) -> None:
        self._features_ND = features
        self._labels = labels
        self._shares_SN = shares
        self._num_classes = num_classes
        self._penalty_D1 = penalty

    def __call__(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Losses `[S]` and gradients `[S, D * C]`."""
        num_probes, num_classes = len(flat), self._num_classes
        coefficients = flat.view(num_probes, -1, num_classes)
        value, gradient = torch.zeros(num_probes).to(flat), torch.zeros_like(coefficients)
        size = max(64, _BLOCK_SCORES // (num_probes * num_classes))
        add = self._add_few if num_classes <= _FEW_CLASSES else self._add_many
        for part in slices(len(self._labels), size):
            add(coefficients, part, value, gradient)
        shrink = self._penalty_D1 * coefficients
        value = value + 0.5 * (shrink * coefficients).sum((1, 2))
        return value, (gradient + shrink).reshape(num_probes, -1)

    def of(self, probes: Tensor) -> _Loss:
        """The loss of some of the probes, `[S]` bool or `[s]` int64."""
        return _Loss(self._features_ND, self._labels, self._shares_SN[probes], self._num_classes, self._penalty_D1)

    def at_zero(self) -> Tensor:
        """`[S, D * C]` the gradient where all weights are 0 and every class is as likely as any other."""
        num_probes, num_classes = len(self._shares_SN), self._num_classes
        gradient = torch.zeros(num_probes, self._features_ND.shape[1], num_classes).to(self._features_ND)
        gradient += ((self._shares_SN @ self._features_ND) / num_classes)[:, :, None]
        for probe, shares in zip(gradient, self._shares_SN, strict=True):
            for part in slices(len(self._labels), _BLOCK_SCORES // 128):
                probe.T.index_add_(0, self._labels[part], self._features_ND[part] * -shares[part, None])
        return gradient.view(num_probes, -1)

    def _add_few(self, coefficients: Tensor, part: slice, value: Tensor, gradient: Tensor) -> None:
        """Classes before rows: sums over few classes then run along contiguous rows."""
        features_mD, shares_Sm = self._features_ND[part], self._shares_SN[:, part]
        num_probes, width, num_classes = coefficients.shape
        stacked = coefficients.transpose(1, 2).reshape(num_probes * num_classes, width)
        scores = (stacked @ features_mD.T).view(num_probes, num_classes, -1)
        residual = scores.sub_(scores.amax(dim=1, keepdim=True)).exp_()
        residual /= residual.sum(dim=1, keepdim=True)
        own_S1m = self._labels[part].expand(num_probes, 1, -1)
        own = residual.gather(1, own_S1m)
        value -= (_log(own.squeeze(1)) * shares_Sm).sum(1)
        residual.scatter_(1, own_S1m, own - 1).mul_(shares_Sm[:, None])
        found = residual.view(num_probes * num_classes, -1) @ features_mD
        gradient += found.view(num_probes, num_classes, width).transpose(1, 2)

    def _add_many(self, coefficients: Tensor, part: slice, value: Tensor, gradient: Tensor) -> None:
        """Rows before classes: each row's many classes are contiguous."""
        features_mD, own_m1 = self._features_ND[part], self._labels[part, None]
        for index, probe_DC in enumerate(coefficients):
            shares_m = self._shares_SN[index, part]
            residual = (features_mD @ probe_DC).softmax(dim=1)
            own = residual.gather(1, own_m1)
            value[index] -= (_log(own.squeeze(1)) * shares_m).sum()
            residual.scatter_(1, own_m1, own - 1).mul_(shares_m[:, None])
            gradient[index].addmm_(features_mD.T, residual)


def _log(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny).log()


def _minimise(loss: _Loss, start: Tensor, max_steps: int, tolerance: float, work: Work) -> Tensor:
    """Steps of all probes side by side; one that has arrived is left where it is and costs no more."""
    found = start.flatten(1).clone()
    which, point = torch.arange(len(found), device=found.device), found
    value, gradient = loss(point)
    # At zero weights; a warm start would otherwise be asked to improve on itself.
    goal = tolerance * loss.at_zero().norm(dim=1)
    pairs: list[_Pair] = []
    for step in range(max_steps):
        work.tick(step / max_steps)
        moving = gradient.norm(dim=1) > goal
        if not moving.all():
            found[which[~moving]] = point[~moving]
            which, point, value, gradient, goal = (each[moving] for each in (which, point, value, gradient, goal))
            pairs = [pair.of(moving) for pair in pairs]
            loss = loss.of(moving)
        if not len(which):
            break
        direction = _quasi_newton_direction(gradient, pairs)
        new_point, new_value, new_gradient = _backtrack(loss, point, value, gradient, direction)
        if torch.equal(new_point, point):  # no probe can fall any more, with what is remembered of earlier steps
            if not pairs:
                break
            pairs = []
            continue
        pairs = [*pairs[-(_MEMORY - 1) :], _Pair.between(point, new_point, gradient, new_gradient)]
        point, value, gradient = new_point, new_value, new_gradient
    found[which] = point
    return found.view_as(start)


class _Pair(NamedTuple):
    """A step of each probe and how its gradient changed by it, with what the recursion asks of both again and again."""

    step: Tensor  # [S, P]
    change: Tensor  # [S, P]
    inverse: Tensor  # [S, 1]: 1 / (step · change); 0 where there is no curvature, so that the pair is passed over
    scale: Tensor  # [S, 1]: step · change / change · change, of the first guess at the inverse of the curvature; or 1

    @classmethod
    def between(cls, point: Tensor, new_point: Tensor, gradient: Tensor, new_gradient: Tensor) -> _Pair:
        step, change = new_point - point, new_gradient - gradient
        tiny, curvature = torch.finfo(gradient.dtype).tiny, _dot(step, change)
        inverse = torch.where(curvature > 0, 1 / curvature.clamp(min=tiny), 0.0)
        scale = curvature / _dot(change, change).clamp(min=tiny)
        return cls(step, change, inverse, torch.where(scale > 0, scale, 1.0))

    def of(self, probes: Tensor) -> _Pair:
        """Those of some of the probes, `[S]` bool."""
        return _Pair(*(each[probes] for each in self))


def _quasi_newton_direction(gradient: Tensor, pairs: list[_Pair]) -> Tensor:
    """Two-loop recursion over each probe's own pairs."""
    direction, shares = -gradient, []
    for pair in reversed(pairs):
        shares.append(pair.inverse * _dot(pair.step, direction))
        direction.addcmul_(shares[-1], pair.change, value=-1)
    if pairs:
        direction *= pairs[-1].scale
    for pair, share in zip(pairs, reversed(shares), strict=True):
        direction.addcmul_(pair.step, share - pair.inverse * _dot(pair.change, direction))
    return direction


def _backtrack(
    loss: _Loss, point: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve each probe's own step until its loss has fallen enough; one that cannot fall stays where it is."""
    slope = _SUFFICIENT_DECREASE * _dot(gradient, direction).squeeze(1)
    limit = value + 1e-6 * value.abs()  # rounding of the value itself must not stop a probe that has arrived
    tried = point + direction
    found, found_gradient = loss(tried)
    good = found <= limit + slope
    if good.all():  # nearly always
        return tried, found, found_gradient
    new_point, new_value = torch.where(good[:, None], tried, point), torch.where(good, found, value)
    new_gradient = torch.where(good[:, None], found_gradient, gradient)
    trying, length = (~good).nonzero().squeeze(1), 0.5
    for _ in range(_MAX_HALVINGS - 1):
        tried = point[trying] + length * direction[trying]
        found, found_gradient = loss.of(trying)(tried)
        good = found <= limit[trying] + length * slope[trying]
        fallen = trying[good]
        new_point[fallen], new_value[fallen], new_gradient[fallen] = tried[good], found[good], found_gradient[good]
        trying, length = trying[~good], 0.5 * length
        if not len(trying):
            break
    return new_point, new_value, new_gradient


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=1, keepdim=True)
