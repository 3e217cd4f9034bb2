"""What rows of a problem are called in messages: their role and their id, put together when asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import SupportsIndex, overload

import numpy as np

from homing.pools.rows import ProblemRows
from homing.pools.texts import Texts


class RowNames(Sequence[str]):
    """`role id` of each row; equal to a tuple or list of the same texts.

    Args:
        parts: A role and the ids of its rows, in the order of the rows.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, parts: Sequence[tuple[str, Texts]]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(ids) for _, ids in parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | Texts:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        row = int(index) + (len(self) if int(index) < 0 else 0)
        if not 0 <= row < len(self):
            raise IndexError(f"row {int(index)} of {len(self)}")
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        role, ids = self._parts[part]
        return f"{role} {ids[row - int(self._starts[part])]}"

    def __iter__(self) -> Iterator[str]:
        for role, ids in self._parts:
            yield from (f"{role} {sample_id}" for sample_id in ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def take(self, rows: ProblemRows) -> Texts:
        """The names of some rows, in their order."""
        rows = np.asarray(rows, np.int64)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        found, places = [], []
        for number, (role, ids) in enumerate(self._parts):
            mine = np.flatnonzero(parts == number)
            found.append(ids.take(rows[mine] - self._starts[number]).with_prefix(f"{role} "))
            places.append(mine)
        order = np.argsort(np.concatenate(places)) if places else np.zeros(0, np.int64)
        return Texts.concat(found).take(order)
