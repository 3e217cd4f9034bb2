"""Arrays of one shape by number, in a file that has no name and goes with the processes that hold it."""

from __future__ import annotations

import os
import zlib
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
_PAGE = 4_096


class Shelf:
    """Up to `count` arrays, each of which may be missing; what is half written counts as missing.

    In front of the arrays lies the checksum of each, which is written behind it: processes that hold the same file use
    what the others have put there. Bytes are copied, not mapped, so that a full disk is an error and not a signal, and
    resident memory stays what it was; the system keeps in memory what fits.

    Args:
        file: Open for reading and writing, empty or another process's of the same arguments.
        count: Arrays at most.
        shape: Of each.
        dtype: float32 or float16: as they are stored. Numbers too large for float16 are held at its largest.
        shared: Whether other processes write to the file.
    """

    def __init__(
        self, file: IO[bytes], count: int, shape: tuple[int, ...], dtype: str, *, shared: bool = False
    ) -> None:
        self.file, self.shape, self.dtype, self.shared = file, shape, np.dtype(dtype), shared
        self.row_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self.is_full = False  # whether nothing can be written any more
        self._sums = np.zeros(count, np.uint32)
        self._start = -(-self._sums.nbytes // _PAGE) * _PAGE
        try:
            os.ftruncate(file.fileno(), self._start + count * self.row_bytes)
        except OSError:
            self.is_full = True

    def has(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which arrays are there; bool [m]. numbers: int64 [m]."""
        there = self._sums[numbers] != 0
        if self.shared and not self.is_full and not there.all():
            self._sums = np.frombuffer(bytearray(os.pread(self.file.fileno(), self._sums.nbytes, 0)), np.uint32)
            there = self._sums[numbers] != 0
        return np.asarray(there)

    def put(self, numbers: Numbers, values: npt.NDArray[Any]) -> None:
        """Write some arrays [m, *shape]; where that fails, nothing is written any more."""
        stored = np.ascontiguousarray(self.rounded(values)).reshape(len(numbers), -1)
        try:
            for number, row in zip(numbers.tolist(), stored, strict=True):
                if self.is_full:
                    return
                self._write(row.tobytes(), self._start + number * self.row_bytes)
                self._sums[number] = _sum_of(row)
                self._write(self._sums[number].tobytes(), 4 * number)
        except OSError:
            self.is_full = True

    def take(self, numbers: Numbers) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Some arrays, [m, *shape], and which of them were there and whole; bool [m]."""
        out, good = np.zeros((len(numbers), *self.shape), self.dtype), self.has(numbers)
        for place, number in enumerate(numbers.tolist()):
            if good[place]:
                row = out[place].reshape(-1)
                count = os.preadv(self.file.fileno(), [row.view(np.uint8).data], self._start + number * self.row_bytes)
                good[place] = count == self.row_bytes and _sum_of(row) == self._sums[number]
        return out, good

    def rounded(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values as they come back from here."""
        if self.dtype == values.dtype:
            return values
        most = np.finfo(self.dtype).max
        return np.where(np.isfinite(values), np.clip(values, -most, most), values).astype(self.dtype)

    def _write(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self.file.fileno(), data, offset)
            data, offset = data[written:], offset + written


def _sum_of(row: npt.NDArray[Any]) -> int:
    """A checksum that is never 0."""
    return zlib.crc32(row.view(np.uint8).data) | 1
