"""Data order: which rows a step takes, as a pure function of (seed, epoch, how often each row counts).

Nothing is saved to resume, and nothing depends on the number of workers or processes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


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


def resampled_counts(expected: npt.NDArray[np.floating], *, seed: int, epoch: int) -> Rows:
    """Low-variance (systematic) resampling: how often each row is taken in one epoch.

    Each count is its expectation rounded up or down, unbiased over epochs, and the counts' sum is the expectations'
    sum rounded up or down.

    Args:
        expected: Times each row shall be taken on average, >= 0, [N].
        seed: Of the run.
        epoch: From 0.

    Returns:
        int64 [N].
    """
    generator = np.random.default_rng([seed, epoch, 1])
    order = generator.permutation(len(expected))  # neighbours in the pool shall not share their luck
    offset = np.floor(generator.random() * 2**24) / 2**24  # few bits, so that adding it to a whole number is exact
    edges = np.floor(np.cumsum(expected[order], dtype=np.float64) + offset)
    counts = np.empty(len(expected), np.int64)
    counts[order] = np.diff(edges, prepend=0.0).astype(np.int64)
    return counts


def epoch_order(counts: Rows, *, seed: int, epoch: int) -> tuple[Rows, Rows]:
    """The rows of one epoch in training order.

    Args:
        counts: How often each row is taken, int64 [N].
        seed: Of the run.
        epoch: From 0.

    Returns:
        (rows, copies), int64 [counts.sum()] each: copies counts the visits of one row from 0, so that each visit has
        an augmentation of its own.
    """
    rows = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    copies = np.arange(len(rows)) - starts[rows]
    order = np.random.default_rng([seed, epoch, 0]).permutation(len(rows))
    return rows[order], copies[order]


def share_of_rank(rows: Rows, rank: int, num_ranks: int) -> Rows:
    """The rows of a global batch that one process takes: every `num_ranks`-th, each row by exactly one process."""
    return rows[rank::num_ranks]
