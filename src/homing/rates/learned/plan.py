"""What to train on: the outcome of learning rates, and of every plan-based baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from homing.rates.learned.scorer import Scorer


@dataclass(frozen=True)
class RatePlan:
    """Train on `sum_i rates[i] * loss_i` over the source plus `target_weight * sum_j loss_j` over the target.

    Attributes:
        rates: `[N]` float32, at least 0, mean 1 within each class of the source, less in classes that the target lacks
            (0 everywhere: train on no source).
        target_weight: How often each target image counts; 0: the target is not trained on.
        phi: The few learned numbers behind the rates, for `results.json`.
        descriptors: Name to `[N]` float32, what the rates were computed from, for `rates.parquet`.
        judged: One row per setting that was judged on held-out target images, the chosen one marked.
        warnings: What the reader of the report should know.
        scorer: Gives rates to rows that were not there, by the same descriptors and numbers.
        suggested: `[N]` int64, the class that fits each row best; its own label unless that is probably wrong.
        doubted: Target images that the held-out folds find to be of another class: row of the target, that class.
        source_share: Share of the steps that train on the whole source alone, before the rates hold.
    """

    rates: Tensor
    target_weight: float
    phi: dict[str, float] = field(default_factory=dict)
    descriptors: dict[str, Tensor] = field(default_factory=dict)
    judged: list[dict[str, float | bool]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suggested: Tensor | None = None
    doubted: list[tuple[int, int]] = field(default_factory=list)
    source_share: float = 0.0
    scorer: Scorer | None = None

    @property
    def effective_sample_size(self) -> float:
        """That of `rates`, in rows."""
        return effective_sample_size(self.rates)


def effective_sample_size(rates: Tensor) -> float:
    """`(sum r)^2 / sum r^2` of rates `[N]`: N for uniform ones, 0 where no source is trained on (Kish 1965)."""
    squares = float(rates.double().square().sum())
    return float(rates.double().sum()) ** 2 / squares if squares else 0.0


LEAST_ROWS = 10
"""Effective rows that each class keeps, or all of its rows where it has fewer: no class rests on a handful."""


def spread_within_classes(
    rates: Tensor, labels: Tensor, num_classes: int, masses: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rates balanced within classes, mixed with uniform ones as far as a class needs to keep `LEAST_ROWS`.

    With mean 1 and variance v in a class of N rows its effective sample size is N / (1 + v), and a share u of uniform
    rates makes it N / (1 + (1 - u)^2 v).

    Args:
        rates: `[..., N]`, at least 0.
        labels: `[N]` int64.
        num_classes: C.
        masses: `[N]` rows that each row stands for: a row of mass 3 counts as three; 1 each where not given.

    Returns:
        The rates, mean 1 within each class, and `[..., C]` the share of uniform rates in them: 0 nearly always.
    """
    balanced = balanced_within_classes(rates, labels, num_classes, masses)
    counts = _class_masses(labels, num_classes, masses).clamp(min=1)
    variance = (class_sums(balanced.square(), labels, num_classes, masses) / counts - 1).clamp(min=1e-12)
    allowed = (counts / LEAST_ROWS).clamp(min=1.0) - 1
    uniform = (1 - (allowed / variance).clamp(max=1.0).sqrt()).to(rates.dtype)
    return balanced + uniform[..., labels] * (1 - balanced), uniform


def balanced_within_classes(rates: Tensor, labels: Tensor, num_classes: int, masses: Tensor | None = None) -> Tensor:
    """Scale rates to mean 1 within each class, so that no rate can skew the class prior.

    Args:
        rates: `[..., N]`, at least 0.
        labels: `[N]` int64.
        num_classes: Length of the class list; classes without rows are no trouble.
        masses: `[N]` as in `spread_within_classes`.

    Returns:
        `[..., N]`. A class whose rates are all 0 gets rate 1 throughout: nothing is known about it.
    """
    counts = _class_masses(labels, num_classes, masses)
    means = (class_sums(rates, labels, num_classes, masses) / counts.clamp(min=torch.finfo(torch.float32).tiny)).to(
        rates.dtype
    )
    means = means[..., labels]
    return torch.where(means > 0, rates / means.clamp(min=torch.finfo(rates.dtype).tiny), torch.ones_like(rates))


def class_sums(values: Tensor, labels: Tensor, num_classes: int, masses: Tensor | None = None) -> Tensor:
    """`[..., C]` float64 sums of `[..., N]` over the rows of each class, each row as often as its mass says.

    In float64: in float32 ten million rows of a class add up to a tenth too little, or too much.
    """
    rows = values.reshape(-1, len(labels))
    sums = torch.zeros(len(rows), num_classes, dtype=torch.float64)
    for row, total in zip(rows, sums, strict=True):
        weights = row.double() if masses is None else row.double() * masses
        total.copy_(torch.bincount(labels, weights, minlength=num_classes))
    return sums.view(*values.shape[:-1], num_classes)


def _class_masses(labels: Tensor, num_classes: int, masses: Tensor | None) -> Tensor:
    weights = None if masses is None else masses.double()
    return torch.bincount(labels, weights, minlength=num_classes).double()
