"""Which rows of a rated pool make a corpus, and how often each: all, the best share, or drawn by rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from homing.pools.label_sets import by_rarest, labels_in
from homing.pools.order import keyed_uniform

Counts = npt.NDArray[np.int32]
MOST_DRAWN = 500_000_000
"""Rows that can be drawn: below 2²⁹, so that sums of 53 bits hold them and 24 bits of luck exactly."""
_BLOCK = 1 << 20  # rows in hand at a time


def keep_best(
    rates: npt.NDArray[np.float32], classes: npt.NDArray[np.int32] | None, usable: npt.NDArray[np.bool_], share: float
) -> Counts:
    """The rows with the highest rates, once each.

    The rule: the lowest rate that still belongs is the threshold of a class. All rows above it are kept. Of the rows at
    it as many as are missing, in an order that is random but always the same: by a number drawn for each row's place
    in the rates file, the smallest first.

    Args:
        rates: [N].
        classes: [N] class of each row: the share is taken of every class alike, at least one row of each; None: of
            all rows together.
        usable: [N] whether the row's image can be read.
        share: Of the rows, (0, 1].

    Returns:
        int32 [N] of 0 and 1.
    """
    counts = np.zeros(len(rates), np.int32)
    for rows in _by_class(classes, usable):
        counts[_best(rows, rates[rows], max(1, round(share * len(rows))))] = 1
    return counts


def strata(codes: npt.NDArray[np.int32], sets: Sequence[str], usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """What a share of rows with several labels is taken of: the rarest label of each, as where pools are divided.

    The sets themselves would not do: nearly every row may have one of its own.

    Args:
        codes: [N] position of each row's set.
        sets: Texts of the sets, [K].
        usable: [N] whether the row's image can be read; others are not counted.

    Returns:
        int32 [N], position among the labels, sorted, that are the rarest of any set; rows of no label are a kind too.

    Raises:
        ValueError: A text is no set of labels.
    """
    labels, counts = [labels_in(text) for text in sets], Counter[str]()
    for own, count in zip(labels, np.bincount(codes[usable], minlength=len(sets)).tolist(), strict=True):
        counts.update(dict.fromkeys(own, count))
    return by_rarest(labels, counts)[0][codes]


def _by_class(classes: npt.NDArray[np.int32] | None, usable: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """The usable rows of each class that has any, in their order; views of one array."""
    rows = np.flatnonzero(usable)
    if classes is None or not len(rows):
        return [rows] if len(rows) else []
    codes = classes[rows]
    if int(codes.max()) < 1 << 16:
        codes = codes.astype(np.uint16)  # sorted by digits: no comparison of 10 M rows
    sizes = np.bincount(codes)
    rows = rows[np.argsort(codes, kind="stable")]
    return [part for part in np.split(rows, np.cumsum(sizes)[:-1]) if len(part)]


def _best(rows: npt.NDArray[np.int64], rates: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    threshold = np.partition(rates, len(rates) - count)[len(rates) - count]
    above, tied = rows[rates > threshold], rows[rates == threshold]
    missing = count - len(above)
    if missing < len(tied):
        luck = np.concatenate([keyed_uniform(part, num=1)[:, 0] for part in _blocks(tied)])
        tied = tied[np.argpartition(luck, missing - 1)[:missing]]
    return np.concatenate([above, tied])


def _blocks(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]


def resample(rates: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_], num_rows: int, seed: int) -> Counts:
    """Low-variance resampling: each row's count is its expectation rounded up or down; together they are `num_rows`.

    Args:
        rates: [N], at least 0, not all 0.
        usable: [N] whether the row's image can be read.
        num_rows: Rows to draw, 1 to `MOST_DRAWN`.
        seed: Of the draw.

    Returns:
        int32 [N].
    """
    generator = np.random.default_rng([seed, 0, 1])
    order = generator.permutation(len(rates))  # neighbours in the pool shall not share their luck
    offset = np.floor(generator.random() * 2**24) / 2**24  # few bits, so that adding it to a whole number is exact
    total = sum(float(_masses(rates, usable, block).sum()) for block in _blocks(order))
    counts, reached, edge, last = np.zeros(len(rates), np.int32), 0.0, 0.0, 0
    for block in _blocks(order):
        masses = _masses(rates, usable, block) * (num_rows / total)
        last = int(block[np.flatnonzero(masses)[-1]]) if masses.any() else last
        sums = reached + np.cumsum(masses)
        edges = np.minimum(np.floor(sums + offset), num_rows)
        counts[block] = np.diff(edges, prepend=edge)
        reached, edge = float(sums[-1]), float(edges[-1])
    counts[last] += num_rows - int(edge)  # where the sum of many parts falls short by a rounding
    return counts


def _masses(
    rates: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    return np.where(usable[rows], rates[rows], 0).astype(np.float64)
