"""Which rows of a rated pool make a corpus, and how often each: all, the best share, or drawn by rate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from homing.pools.order import keyed_uniform, resampled_counts

Counts = npt.NDArray[np.int64]


def keep_best(
    rates: npt.NDArray[np.float32], classes: npt.NDArray[np.int32] | None, usable: npt.NDArray[np.bool_], share: float
) -> Counts:
    """The rows with the highest rates, once each.

    Rows of one rate are taken in an order that is random but always the same: not by their place in the pool.

    Args:
        rates: [N].
        classes: [N] class of each row: the share is taken of every class alike, at least one row of each; None: of
            all rows together.
        usable: [N] whether the row's image can be read.
        share: Of the rows, (0, 1].

    Returns:
        int64 [N] of 0 and 1.
    """
    counts = np.zeros(len(rates), np.int64)
    rows = np.flatnonzero(usable)
    luck = keyed_uniform(rows, num=1)[:, 0]
    group = np.zeros(len(rows), np.int32) if classes is None else classes[rows]
    order = rows[np.lexsort((luck, -rates[rows], group))]
    sizes = np.bincount(group)
    start = 0
    for size in sizes[sizes > 0]:
        counts[order[start : start + max(1, round(share * int(size)))]] = 1
        start += int(size)
    return counts


def resample(rates: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_], num_rows: int, seed: int) -> Counts:
    """Low-variance resampling: each row's count is its expectation rounded up or down; together they are `num_rows`.

    Args:
        rates: [N], at least 0, not all 0.
        usable: [N] whether the row's image can be read.
        num_rows: Rows to draw, at least 1.
        seed: Of the draw.

    Returns:
        int64 [N].
    """
    masses = np.where(usable, rates, 0).astype(np.float64)
    return resampled_counts(masses * (num_rows / masses.sum()), seed=seed, epoch=0)
