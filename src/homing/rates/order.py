"""Which rows an epoch takes, in which order: a pure function of (seed, epoch, how often each row counts).

Nothing is saved to resume, and nothing depends on the number of workers or processes.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_INT32 = 2**31 - 1
_CHUNK = 1 << 18  # rows at a time
_ROUNDS = 6  # of mixing a visit's number


class Expected(Protocol):
    """Times each of N rows shall be taken on average, >= 0; a float array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Those of some rows, float [len(rows)]."""
        ...


def resampled_counts(expected: Expected, *, seed: int, epoch: int, streamed: bool = False) -> Counts:
    """Low-variance (systematic) resampling: how often each row is taken in one epoch.

    Each count is its expectation rounded up or down, unbiased over epochs, and the counts' sum is the expectations'
    sum rounded up or down. Besides the counts it takes 4 bytes a row, or nothing where it is streamed.

    Args:
        expected: Times each row shall be taken on average, >= 0, [N].
        seed: Of the run.
        epoch: From 0.
        streamed: Shuffle rows among neighbours of one piece alone: other counts, faster where there are many millions.

    Returns:
        int32 [N]; int64 where one of them needs it.
    """
    generator = np.random.default_rng([seed, epoch, 1])
    order = None if streamed else shuffled(len(expected), generator)  # neighbours shall not share their luck
    offset = np.floor(generator.random() * 2**24) / 2**24  # few bits, so that adding it to a whole number is exact
    counts: Counts = np.empty(len(expected), np.int32)
    total, edge = 0.0, 0.0
    for start in range(0, len(expected), _CHUNK):
        stop = min(start + _CHUNK, len(expected))
        rows = start + shuffled(stop - start, generator) if order is None else order[start:stop]
        # one running sum over all chunks: added up in the same order, it is the same to the last bit
        sums = np.cumsum(np.concatenate([[total], expected[rows]]), dtype=np.float64)[1:]
        edges = np.floor(sums + offset)
        taken = np.diff(edges, prepend=edge)
        if taken.max() > _INT32 and counts.dtype != np.int64:
            counts = counts.astype(np.int64)
        counts[rows] = taken
        total, edge = sums[-1], edges[-1]
    return counts


class EpochOrder:
    """The visits of one epoch in training order, as `order[start:stop]`: rows and copies, int64 each.

    Copies count the visits of one row from 0, so that each visit has an augmentation of its own. Nothing is kept but
    the shuffled numbers of the visits and the running sum of the counts, 4 bytes each: whose visit it is, is looked up.

    Args:
        counts: How often each row is taken, whole numbers [N].
        seed: Of the run.
        epoch: From 0.
        streamed: Compute the place of a visit when it is asked for instead of keeping all of them, and keep the running
            sum where the counts stood: another order, 4 bytes a row in all.
    """

    def __init__(self, counts: Counts | Rows, *, seed: int, epoch: int, streamed: bool = False) -> None:
        num_visits = int(counts.sum(dtype=np.int64))
        generator = np.random.default_rng([seed, epoch, 0])
        self._visits = _Mixed(num_visits, generator) if streamed else shuffled(num_visits, generator)
        self._num_visits = num_visits
        # of the same type as the visits' numbers: searching for another type would copy it whole
        kind = _type_of(num_visits)
        self._ends = np.cumsum(counts, dtype=kind, out=counts if streamed and counts.dtype == kind else None)

    def __len__(self) -> int:
        return self._num_visits

    def __getitem__(self, positions: slice) -> tuple[Rows, Rows]:
        visits = self._visits[positions]
        rows = np.searchsorted(self._ends, visits, side="right")
        starts = np.where(rows > 0, self._ends[rows - 1], 0)
        return rows.astype(np.int64), (visits - starts).astype(np.int64)


class _Mixed:
    """0 .. num − 1 in an order that is computed where it is looked at.

    Multiplying by an odd number and folding the upper half of the bits onto the lower one are both reversible, so a few
    rounds of them permute 0 .. 2^bits − 1; a number that lands at num or beyond is mixed again until it does not.
    """

    def __init__(self, num: int, generator: np.random.Generator) -> None:
        self._num = num
        bits = max(2, int(num - 1).bit_length())
        self._mask, self._half = np.uint64(2**bits - 1), np.uint64((bits + 1) // 2)
        self._keys = generator.integers(0, 2**63, (_ROUNDS, 2), dtype=np.uint64)

    def __getitem__(self, positions: slice) -> Counts:
        values = np.arange(*positions.indices(self._num), dtype=np.uint64)
        outside = np.arange(len(values))
        while len(outside):
            values[outside] = self._mix(values[outside])
            outside = outside[values[outside] >= self._num]
        return values.astype(_type_of(self._num))

    def _mix(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        for factor, shift in self._keys:
            values = (values * (factor | np.uint64(1)) + shift) & self._mask
            values ^= values >> self._half
        return values


def _type_of(num: int) -> Any:
    return np.int32 if num <= _INT32 else np.int64


def shuffled(num: int, generator: np.random.Generator) -> Counts:
    """0 .. num − 1 as `generator.permutation(num)` has them, in half the memory where they fit."""
    order: Counts = np.arange(num, dtype=_type_of(num))
    generator.shuffle(order)
    return order


def share_of_rank(rows: Rows, rank: int, num_ranks: int) -> Rows:
    """The rows of a global batch that one process takes: every `num_ranks`-th, each row by exactly one process."""
    return rows[rank::num_ranks]
