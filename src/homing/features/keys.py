"""Keys of 128 bits, found among millions of others without a Python object for each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from homing.features.shards import Bytes

Numbers = npt.NDArray[np.int64]


class KeySet:
    """The distinct keys of some rows.

    Args:
        keys: uint8 [N, 16 or more], of which the first 16 bytes of a row count. They must be as good as random
            (digests): all comparing is done on the first half.

    Attributes:
        of_row: int32 [N]: which of the distinct keys a row has.
    """

    def __init__(self, keys: Bytes) -> None:
        first, second = _halves(keys)
        order = np.argsort(first)
        high, low = first[order], second[order]
        same = high[1:] == high[:-1]
        if (same & (low[1:] != low[:-1])).any():  # two keys that share a half: once in 2**64 / N**2 pools, or by design
            order = np.lexsort((second, first))
            high, low = first[order], second[order]
            same = high[1:] == high[:-1]
        new = np.ones(len(high), np.bool_)
        new[1:] = ~(same & (low[1:] == low[:-1]))
        self.of_row = np.empty(len(high), np.int32)
        self.of_row[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
        self._first_row = order[new]
        self._high, self._low = high[new], low[new]

    def __len__(self) -> int:
        return len(self._high)

    def one_row_each(self) -> Numbers:
        """A row that has each of the distinct keys; int64 [len(self)]."""
        return self._first_row

    def find(self, keys: Bytes) -> Numbers:
        """Which of the distinct keys each of some others is; int64 [M], -1 where none."""
        high, low = _halves(keys)
        found = np.full(len(high), -1, np.int64)
        if not len(self):
            return found
        order = np.argsort(high)  # neighbours in the question are neighbours in the answer: the caches like it
        at = np.empty(len(high), np.int64)
        at[order] = np.searchsorted(self._high, high[order])
        candidates = np.flatnonzero(at < len(self))
        while len(candidates):
            place = at[candidates]
            alike = self._high[place] == high[candidates]
            candidates, place = candidates[alike], place[alike]
            hit = self._low[place] == low[candidates]
            found[candidates[hit]] = place[hit]
            candidates = candidates[~hit]
            at[candidates] += 1
            candidates = candidates[at[candidates] < len(self)]
        return found


def is_known(keys: Bytes) -> npt.NDArray[np.bool_]:
    """Which keys are not all zero; bool [N]."""
    first, second = _halves(keys)
    known: npt.NDArray[np.bool_] = (first | second) != 0
    return known


def _halves(keys: Bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    words = np.ascontiguousarray(keys[:, :16]).view(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
