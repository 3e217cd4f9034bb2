"""Canvases kept for the next time a row is asked for: in memory as many as fit, or on disk."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Canvases = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class KeptCanvases(Protocol):
    """Canvases on disk, by row."""

    def has(self, rows: Numbers) -> Flags:
        """Which rows are there."""
        ...

    def take(self, rows: Numbers) -> Canvases:
        """Canvases of rows that are."""
        ...


class RowCache:
    """Canvases held in memory, of as many rows as fit; from several threads at once.

    Args:
        count: Rows in all.
        canvas: Side of a canvas, pixels.
        cache_gb: Memory that they may take.
        first: Rows that are kept before all others; then the others, the first ones first.
    """

    def __init__(self, count: int, canvas: int, cache_gb: float, first: Numbers | None) -> None:
        size = min(count, int(cache_gb * 1e9) // (canvas * canvas * 3))
        self.canvases = np.empty((size, canvas, canvas, 3), np.uint8)
        self._held = np.zeros(size, np.bool_)
        self._slot = np.full(count if size else 0, -1, np.int32)
        if size:
            first = np.empty(0, np.int64) if first is None else first[:size]
            self._slot[first] = np.arange(len(first))
            others = np.flatnonzero(self._slot < 0)[: size - len(first)]
            self._slot[others] = np.arange(len(first), len(first) + len(others))

    def take(self, rows: Numbers, out: Canvases) -> Flags:
        """Copy what is held of some rows to their places in `out`; which those are."""
        if not len(self._slot) or not len(rows):
            return np.zeros(len(rows), np.bool_)
        slots = self._slot[rows]
        held = (slots >= 0) & self._held[slots]
        if held.all():
            np.take(self.canvases, slots, axis=0, out=out, mode="clip")  # raise would copy twice
        elif held.any():
            out[held] = self.canvases[slots[held]]
        return held

    def put(self, row: int, canvas: Canvases) -> None:
        """Hold a row's canvas, where it has a place."""
        if len(self._slot) and (slot := int(self._slot[row])) >= 0:
            self.canvases[slot] = canvas
            self._held[slot] = True

    def select(self, keep: Numbers) -> None:
        """Count only these rows, in this order."""
        self._slot = self._slot[keep] if len(self._slot) else self._slot


class DiskCanvases:
    """Canvases on disk, of rows that are counted as they are now.

    Args:
        kept: Canvases by row.
        digests: uint8 [N, 16]: beginning of the sha256 of the bytes that each was decoded from.
        rows: Row of `kept` for each row here, int64 [N].
    """

    def __init__(self, kept: KeptCanvases, digests: npt.NDArray[np.uint8], rows: Numbers) -> None:
        self.kept, self.digests, self.rows = kept, digests, rows

    def has(self, rows: Numbers) -> Flags:
        """Which rows are there; bool [m]."""
        return self.kept.has(self.rows[rows])

    def take(self, rows: Numbers) -> Canvases:
        """Canvases of rows that are."""
        return self.kept.take(self.rows[rows])

    def of_bytes(self, rows: Numbers, digests: npt.NDArray[np.uint8]) -> Flags:
        """Which rows are there, decoded from bytes of these digests; bool [m]. digests: uint8 [m, 32]."""
        same: Flags = (self.digests[self.rows[rows]] == digests[:, :16]).all(1)
        return same & self.has(rows)

    def select(self, keep: Numbers) -> DiskCanvases:
        """Of some rows, which are then counted from 0."""
        return DiskCanvases(self.kept, self.digests, self.rows[keep])
