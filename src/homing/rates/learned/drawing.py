"""Rows that stand for a larger pool: drawn class by class at even steps, each with the mass of those it stands for.

Low-variance (systematic) sampling: along the rows of a class, in a given order, every stretch of equal weight gives one
row, so that a rare kind of rows is neither lost nor enriched by chance.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ROWS = 100_000
MOST_CELLS = 100_000_000
LEAST_OF_MANY = 50_000


def fitted_rows(num_classes: int) -> int:
    """How many rows a probe of so many classes is fitted on at most: what more would teach it was not measurable."""
    return min(MOST_ROWS, max(LEAST_OF_MANY, MOST_CELLS // num_classes))


def draw_rows(
    labels: Tensor,
    num_classes: int,
    count: int,
    *,
    by: Tensor | None = None,
    weights: Tensor | None = None,
    masses: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """About `count` rows, as many of each class as of any other as far as it has them.

    Args:
        labels: `[N]` int64.
        num_classes: C.
        count: Rows to draw; every class that has rows is drawn from.
        by: `[N]` what rows of a class are ordered by; their own order where not given.
        weights: `[N]` how much likelier one row is drawn than another of its class, at least 0; rows of weight 0 never.
        masses: `[N]` rows that each row stands for already; 1 each where not given.

    Returns:
        `[M]` int64 rows, ascending, and `[M]` float32 masses, which sum to each class's own mass.
    """
    share = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights.double()
    if masses is not None:
        share = share * masses
    order = labels.argsort(stable=True) if by is None else _by_class(labels, by)
    ends = share[order].cumsum(0)
    sizes = torch.bincount(labels, minlength=num_classes)
    last = sizes.cumsum(0)
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), ends])[torch.cat([torch.zeros(1, dtype=torch.int64), last])]
    available = torch.bincount(labels[share > 0], minlength=num_classes)
    drawn = _even_counts(available, count)
    # `drawn[c]` places at even steps within the stretch of class c.
    classes = torch.repeat_interleave(torch.arange(num_classes), drawn)
    rank = torch.arange(len(classes)) - (drawn.cumsum(0) - drawn)[classes]
    step = (edges[1:] - edges[:-1]) / drawn.clamp(min=1)
    places = torch.searchsorted(ends, edges[:-1][classes] + (rank + 0.5) * step[classes])
    rows, times = torch.unique(order[places.clamp(max=len(order) - 1)], return_counts=True)
    own = torch.ones(1, dtype=torch.float64) if masses is None else masses[rows].double()
    mass = times * step[labels[rows]] * own / share[rows]
    held = torch.bincount(labels, masses, minlength=num_classes).double()
    found = torch.bincount(labels[rows], mass, minlength=num_classes)
    return rows, (mass * (held / found.clamp(min=1e-300))[labels[rows]]).float()


def _by_class(labels: Tensor, by: Tensor) -> Tensor:
    order = by.argsort(stable=True)
    return order[labels[order].argsort(stable=True)]


def _even_counts(available: Tensor, count: int) -> Tensor:
    """`[C]` at most what is available, all others alike, `count` together or a little more."""
    low, high = 1, max(1, int(available.max()))
    while low < high:
        level = (low + high) // 2
        if int(available.clamp(max=level).sum()) < count:
            low = level + 1
        else:
            high = level
    return available.clamp(max=low)
