"""Rates balanced within each class: none may skew how often classes occur, and no class rests on a handful of rows."""

from __future__ import annotations

import torch
from torch import Tensor

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
        `[..., N]`. A class whose rates are all 0, or too small for a number, gets rate 1 throughout: nothing is known
        about it.
    """
    counts = _class_masses(labels, num_classes, masses)
    means = (class_sums(rates, labels, num_classes, masses) / counts.clamp(min=torch.finfo(torch.float32).tiny)).to(
        rates.dtype
    )
    means = means[..., labels]
    least = torch.finfo(rates.dtype).tiny  # of what has all its digits
    return torch.where(means >= least, rates / means.clamp(min=least), torch.ones_like(rates))


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
