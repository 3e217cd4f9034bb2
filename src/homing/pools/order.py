"""Data order: which rows a step takes, as a pure function of (seed, epoch, how often each row counts).

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


def keyed_uniform(*keys: int | Rows, num: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) that depend on nothing but the keys (splitmix64 over them in turn).

    Args:
        keys: Whole numbers or int64 arrays of one length B (broadcast).
        num: Numbers drawn for each key.

    Returns:
        float64 [B, num] (B = 1 where all keys are numbers).
    """
    state = np.zeros((1, 1), np.uint64)
    for key in [*(np.atleast_1d(np.asarray(key)) for key in keys)]:
        state = _mix(state ^ key.astype(np.uint64)[:, None])
    return (_mix(state + np.arange(1, num + 1, dtype=np.uint64)[None] * np.uint64(0x9E3779B97F4A7C15)) >> 11) / 2.0**53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The splitmix64 step (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def key_to_seed(*keys: int) -> int:
    """A 53-bit seed for a generator that depends on nothing but the keys."""
    return int(keyed_uniform(*keys, num=1)[0, 0] * 2**53)


class Expected(Protocol):
    """Times each of N rows shall be taken on average, >= 0; a float array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Those of some rows, float [len(rows)]."""
        ...


def resampled_counts(expected: Expected, *, seed: int, epoch: int) -> Counts:
    """Low-variance (systematic) resampling: how often each row is taken in one epoch.

    Each count is its expectation rounded up or down, unbiased over epochs, and the counts' sum is the expectations'
    sum rounded up or down. Besides the counts it takes 4 bytes a row.

    Args:
        expected: Times each row shall be taken on average, >= 0, [N].
        seed: Of the run.
        epoch: From 0.

    Returns:
        int32 [N]; int64 where one of them needs it.
    """
    generator = np.random.default_rng([seed, epoch, 1])
    order = _shuffled(len(expected), generator)  # neighbours in the pool shall not share their luck
    offset = np.floor(generator.random() * 2**24) / 2**24  # few bits, so that adding it to a whole number is exact
    counts: Counts = np.empty(len(expected), np.int32)
    total, edge = 0.0, 0.0
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
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
    """

    def __init__(self, counts: Counts | Rows, *, seed: int, epoch: int) -> None:
        num_visits = int(counts.sum(dtype=np.int64))
        self._shuffled = _shuffled(num_visits, np.random.default_rng([seed, epoch, 0]))
        # of the same type as the visits' numbers: searching for another type would copy it whole
        self._ends = np.cumsum(counts, dtype=self._shuffled.dtype)

    def __len__(self) -> int:
        return len(self._shuffled)

    def __getitem__(self, positions: slice) -> tuple[Rows, Rows]:
        visits = self._shuffled[positions]
        rows = np.searchsorted(self._ends, visits, side="right")
        starts = np.where(rows > 0, self._ends[rows - 1], 0)
        return rows.astype(np.int64), (visits - starts).astype(np.int64)


def _shuffled(num: int, generator: np.random.Generator) -> Counts:
    """0 .. num − 1 as `generator.permutation(num)` has them, in half the memory where they fit."""
    order: Counts = np.arange(num, dtype=np.int32) if num <= _INT32 else np.arange(num, dtype=np.int64)
    generator.shuffle(order)
    return order


def share_of_rank(rows: Rows, rank: int, num_ranks: int) -> Rows:
    """The rows of a global batch that one process takes: every `num_ranks`-th, each row by exactly one process."""
    return rows[rank::num_ranks]
