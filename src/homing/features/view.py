"""Rows of a store, read block by block: what is on disk need never be in memory as a whole."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homing.errors import DataError
from homing.features.shards import Kind, Shard

_OPEN = 128  # files at once
_SORTED_FROM = 1_024  # rows, from which on they are read in the order in which they lie on disk


class StoredRows:
    """Values of N rows, in the pool's order.

    Args:
        kind: Of the store.
        shards: That rows lie in.
        shard: int32 [N]: number of each row's shard; negative for images that cannot be used, whose values are NaN.
        position: int32 [N]: in the shard.
        on_read: Called before something is read.
    """

    def __init__(
        self,
        kind: Kind,
        shards: Sequence[Shard],
        shard: npt.NDArray[np.int32],
        position: npt.NDArray[np.int32],
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind, self.shards = kind, tuple(shards)
        self._shard, self._position, self._on_read = shard, position, on_read
        self._files = _Files(self.shards)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, numbers a row)."""
        return len(self), int(np.prod(self.kind.shape))

    def __len__(self) -> int:
        return len(self._shard)

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Values of some rows, float32 [m, D] on the CPU. rows: int64 [m], or a slice of step 1."""
        wanted = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return torch.from_numpy(self.take(wanted)).flatten(1).float()

    def tensor(self) -> Tensor:
        """All of them, float32 [N, D]: for small pools."""
        return self.rows(slice(None))

    def select(self, rows: npt.NDArray[np.int64]) -> StoredRows:
        """Some rows, in this order; nothing is read. rows: int64 [M]."""
        chosen = StoredRows(self.kind, self.shards, self._shard[rows], self._position[rows], self._on_read)
        chosen._files = self._files
        return chosen

    def has(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which rows have values; bool [m]."""
        return np.asarray(self._shard[rows] >= 0)

    def take(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Values of some rows as they are stored, [m, *shape].

        Raises:
            DataError: A shard is gone or shorter than it was.
        """
        self._on_read()
        shard, position = self._shard[rows], self._position[rows]
        out = np.empty((len(shard), *self.kind.shape), self.kind.dtype)
        if out.nbytes:
            if out.dtype.kind == "f" and (shard < 0).any():
                out[shard < 0] = np.nan
            if isinstance(rows, slice) or len(shard) < _SORTED_FROM:
                self._read(shard, position, out)
            else:
                order = np.lexsort((position, shard))
                ordered = np.empty_like(out)
                self._read(shard[order], position[order], ordered)
                out[order] = ordered
        return out

    def _read(self, shard: npt.NDArray[np.int32], position: npt.NDArray[np.int32], out: npt.NDArray[Any]) -> None:
        """Runs of rows that lie one behind the other are read at once."""
        breaks = np.flatnonzero((np.diff(shard) != 0) | (np.diff(position) != 1)) + 1
        starts = np.concatenate([[0], breaks]).tolist() if len(shard) else []
        ends = [*starts[1:], len(shard)]
        data, size = out.reshape(-1).view(np.uint8).data, self.kind.row_bytes
        with self._files.lock:
            for start, end in zip(starts, ends, strict=True):
                if (number := int(shard[start])) >= 0:
                    offset = self.shards[number].offset(int(position[start]), self.kind)
                    self._files.read(number, data[start * size : end * size], offset)

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "shards": self.shards, "shard": self._shard, "position": self._position}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _Files:
    """Data files, the ones used last kept open. Bytes are copied, not mapped: resident memory stays what it was."""

    def __init__(self, shards: tuple[Shard, ...]) -> None:
        self.shards, self.lock = shards, threading.Lock()
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, number: int, into: memoryview, offset: int) -> None:
        try:
            file = self._file(number)
            while len(into):
                count = os.preadv(file, [into], offset)
                if not count:
                    raise OSError("it ends before its last row")
                into, offset = into[count:], offset + count
        except OSError as error:
            raise DataError(
                f"{self.shards[number].data}: scanned rows cannot be read ({error}); start again, and what is missing"
                " is scanned anew"
            ) from error

    def _file(self, number: int) -> int:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= _OPEN:
            os.close(self._open.popitem(last=False)[1])
        self._open[number] = os.open(self.shards[number].data, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return self._open[number]

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)
