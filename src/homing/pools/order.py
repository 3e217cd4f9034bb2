"""Numbers by key: chance that is a pure function of seed, epoch and row, so that nothing is saved to resume."""

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
