"""Rates for rows that the learner never saw: its fitted descriptors and φ, folded into a few matrices.

The learner scores its own rows out of fold; a new row is scored by the mean of the cross-fitted probes, none of which
saw it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from homing.rates.learned.balance import class_sums, spread_within_classes
from homing.rates.learned.consistency import Consistency
from homing.rates.learned.label_noise import own_class, right_from_clean
from homing.rates.learned.likeness import Likeness
from homing.rates.learned.probe import with_bias

_KNOTS = 4096  # the most: match probabilities are steps, and each step has two ends
_SCALARS = ("match_lift", "let_go")


@dataclass(frozen=True)
class Scores:
    """What is known of M new rows, each [M]: rate, log density ratio, own label's log-probability (NaN: unknown)."""

    rates: Tensor
    target_likeness: Tensor
    label_consistency: Tensor
    best: Tensor | None


@dataclass(frozen=True)
class Scorer:
    """Everything that a rate depends on. D features, C classes.

    Attributes:
        likeness: `[D + 1]` log density ratio of target to source, linear in features and 1.
        match_at: `[K]` log density ratios, ascending, at which `match` is known; between them it is interpolated.
        match: `[K]` probability that a row of this likeness is of the target's domain.
        pool_probe: `[D + 1, C]` logits of the class as the pool tells it; empty where labels play no part.
        lean_probe: `[D + 1, C]` the same by the probe that leans to the target; empty where nothing matches.
        class_scale: `[C]` factor that gave each class its mean rate in the learner's source; the mean one for
            rows without a label stands behind them, so `[C + 1]`, and in the place of classes that the source lacks.
        class_base: `[C + 1]` what every row of a class has of uniform rates, see `spread_within_classes`.
        match_lift: φ, see `Setting`.
        let_go: φ, see `Setting`.
        noise: `[C, C]` of the pool's labels, see `label_noise`; zeros for classes that the source lacks.
    """

    likeness: Tensor
    match_at: Tensor
    match: Tensor
    pool_probe: Tensor
    lean_probe: Tensor
    class_scale: Tensor
    class_base: Tensor
    match_lift: float
    let_go: float
    noise: Tensor

    def __call__(self, features: Tensor, labels: Tensor | None) -> Scores:
        """Score some rows.

        Args:
            features: `[M, D]` float32, of the backbone that the learner's features came from.
            labels: `[M]` int64 in 0..C-1; None where the rows have none: likeness alone then decides.
        """
        inputs = with_bias(features)
        likeness = inputs @ self.likeness
        match = self._match(likeness)
        rates = 1 + (self.match_lift - 1) * match
        consistency, best = torch.full_like(rates, torch.nan), None
        if labels is not None and self.pool_probe.numel():
            consistency, right, best = self._consistency(inputs, labels, match)
            can_tell = self.noise.any(dim=1)[labels]  # else the source has no row of the class: likeness alone decides
            consistency, right = consistency.where(can_tell, torch.nan), right.where(can_tell, 1.0)
            rates = rates * right**self.let_go
            best = torch.where(right < 0.5, best, labels)
        group = torch.full((len(features),), -1) if labels is None else labels
        rates = self.class_base[group] + rates * self.class_scale[group]
        return Scores(rates, likeness, consistency, best)

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors by name, for safetensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: torch.tensor(value) if name in _SCALARS else value for name, value in values.items()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Scorer:
        """The opposite of `tensors`; raises KeyError where one is missing."""
        values = {field.name: tensors[field.name] for field in fields(Scorer)}
        return Scorer(**{name: float(value) if name in _SCALARS else value for name, value in values.items()})  # type: ignore[arg-type]

    def _match(self, likeness: Tensor) -> Tensor:
        right = torch.searchsorted(self.match_at, likeness.contiguous()).clamp(1, len(self.match_at) - 1)
        low, high = self.match_at[right - 1], self.match_at[right]
        share = ((likeness - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)).clamp(0, 1)
        return self.match[right - 1] + share * (self.match[right] - self.match[right - 1])

    def _consistency(self, inputs: Tensor, labels: Tensor, match: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of the label, probability that it is right, likeliest class: `[M]` each, rows among like."""
        pool = (inputs @ self.pool_probe).softmax(dim=1)
        lean = (inputs @ self.lean_probe).softmax(dim=1) if self.lean_probe.numel() else pool
        own, right = (
            match * of(lean, labels) + (1 - match) * of(pool, labels)
            for of in (own_class, partial(right_from_clean, noise=self.noise))
        )
        best = torch.where(match > 0.5, lean.argmax(dim=1), pool.argmax(dim=1))
        return own.clamp(min=torch.finfo(own.dtype).tiny).log(), right, best


def fit_scorer(
    likeness: Likeness,
    consistency: Consistency,
    projection: tuple[Tensor, Tensor],
    labels: Tensor,
    rates: Tensor,
    *,
    num_classes: int,
    match_lift: float,
    let_go: float,
) -> Scorer:
    """Fold what a learner fitted on projected features into one step from features.

    Args:
        likeness: Of the source rows, with its probe.
        consistency: Of the source rows, with its probes where labels play a part.
        projection: Matrix `[D, W]` and offset `[W]` that the probes' features came from.
        labels: `[N]` of the source rows.
        rates: `[N]` that they were given.
        num_classes: C.
        match_lift: φ.
        let_go: φ.
    """

    def unfolded(probe: Tensor | None) -> Tensor:
        if probe is None:
            return torch.empty(0)
        matrix, offset = projection
        return torch.cat([matrix @ probe[:-1], (probe[-1] + offset @ probe[:-1])[None]])

    raw = (1 + (match_lift - 1) * likeness.match) * consistency.right**let_go
    totals = [class_sums(values, labels, num_classes) for values in (rates, raw)]
    found = torch.bincount(labels, minlength=num_classes)
    counts = found.clamp(min=1)
    _, uniform = spread_within_classes(raw, labels, num_classes)
    base = uniform * totals[0] / counts
    scale = (1 - uniform) * torch.where(totals[1] > 0, totals[0] / totals[1].clamp(min=1e-300), 1.0)
    whole = (totals[0].sum() / totals[1].sum().clamp(min=1e-300))[None]
    base, scale = base.where(found > 0, 0.0), scale.where(found > 0, whole)
    match_at, match = _steps(likeness)
    return Scorer(
        likeness=unfolded(torch.zeros(projection[0].shape[1] + 1) if likeness.probe is None else likeness.probe),
        match_at=match_at,
        match=match,
        pool_probe=unfolded(consistency.pool_probe),
        lean_probe=unfolded(consistency.lean_probe),
        class_scale=torch.cat([scale, whole]).float(),
        class_base=torch.cat([base, torch.zeros(1)]).float(),
        match_lift=match_lift,
        let_go=let_go,
        noise=consistency.noise,
    )


def _steps(likeness: Likeness) -> tuple[Tensor, Tensor]:
    """Log density ratios, ascending, and match probabilities where these move: both ends of every step.

    Where there are too many steps, those are kept that divide the way from the lowest to the highest probability
    evenly: what is left out then moves less than a thousandth.
    """
    order = likeness.log_ratio.argsort(stable=True)
    match = likeness.match[order]
    moves = match[1:] != match[:-1]
    ends = torch.ones(len(match) + 1, dtype=torch.bool)
    ends[1:-1] = moves
    knots = (ends[:-1] | ends[1:]).nonzero().flatten()
    if len(knots) > _KNOTS:
        levels = torch.linspace(float(match[0]), float(match[-1]), _KNOTS // 2, dtype=torch.float64)
        found = torch.searchsorted(match[knots].double(), levels).clamp(max=len(knots) - 1)
        knots = knots[torch.unique(torch.cat([found, (found - 1).clamp(min=0)]))]
    if len(knots) == 1:
        knots = knots.repeat(2)
    return likeness.log_ratio[order[knots]].clone(), match[knots].clone()
