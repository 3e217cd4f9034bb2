"""Canvases by row: decoded once where memory allows, by threads, never a neighbour's pixels for a bad image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.decoding import decode
from homing.pools.pool import ImageStore

Canvases = npt.NDArray[np.uint8]
_CHUNK = 256
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: its row, its id with its role, and why."""

    row: int
    name: str
    reason: str


class Images:
    """Decoded canvases of a store's rows.

    Args:
        store: Encoded images.
        rows: Row of the store for each row here, int64 [N].
        names: What to call each row in messages.
        canvas: Side of a canvas, pixels.
        interpolation: Of the resize to the canvas.
        max_pixels: A larger picture is bad.
        cache_gb: Memory that decoded canvases may take; when all of them do not fit, none is kept.
        workers: Threads that decode; 0 decodes in the caller's thread.
    """

    def __init__(
        self,
        store: ImageStore,
        rows: npt.NDArray[np.int64],
        names: Sequence[str],
        *,
        canvas: int,
        interpolation: str = "bicubic",
        max_pixels: int = 64_000_000,
        cache_gb: float = 2.0,
        workers: int = 0,
    ) -> None:
        self.store, self.rows, self.names = store, rows, names
        self.canvas, self.interpolation, self.max_pixels = canvas, interpolation, max_pixels
        self.threads = ThreadPoolExecutor(workers, "decode") if workers else None
        fits = len(rows) * canvas * canvas * 3 <= cache_gb * 1e9
        self._cache = np.empty((len(rows), canvas, canvas, 3), np.uint8) if fits else None
        self._cached = np.zeros(len(rows), np.bool_)

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, rows: npt.NDArray[np.int64]) -> Canvases:
        """Canvases of some rows; uint8 [len(rows), canvas, canvas, 3].

        Raises:
            DataError: An image cannot be decoded; names it.
        """
        if self._cache is None:
            return self._decode_all(rows)
        missing = np.unique(rows[~self._cached[rows]])
        if len(missing):
            self._cache[missing] = self._decode_all(missing)
            self._cached[missing] = True
        return self._cache[rows]

    def fetch_good(self, rows: npt.NDArray[np.int64]) -> tuple[Canvases, list[BadImage]]:
        """Canvases of those of some rows that can be decoded, in their order, and the rows that cannot."""
        results = self._map(self._try, rows)
        bad = [result for result in results if isinstance(result, BadImage)]
        good = [result for result in results if not isinstance(result, BadImage)]
        return np.stack(good) if good else np.empty((0, self.canvas, self.canvas, 3), np.uint8), bad

    def find_bad(
        self, advance: Callable[[int], None] = lambda count: None, rows: npt.NDArray[np.int64] | None = None
    ) -> list[BadImage]:
        """Decode every row once (or only some) and list those that cannot be; fills the cache on the way."""
        bad: list[BadImage] = []
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            bad += [result for result in self._map(self._try, part) if isinstance(result, BadImage)]
            advance(len(part))
        return bad

    def digest(self, rows: npt.NDArray[np.int64], advance: Callable[[int], None] = lambda count: None) -> str:
        """sha256 over the encoded bytes of some rows in their order, 64 hexadecimal digits; nothing is decoded."""
        digest = hashlib.sha256()
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            for one in self._map(self._digest, part):
                digest.update(one)
            advance(len(part))
        return digest.hexdigest()

    def select(self, keep: npt.NDArray[np.int64]) -> None:
        """Keep only these rows, in this order."""
        self.rows, self.names = self.rows[keep], [self.names[row] for row in keep]
        self._cached = self._cached[keep]
        self._cache = None if self._cache is None else self._cache[keep]

    def close(self) -> None:
        """Stop the threads."""
        if self.threads is not None:
            self.threads.shutdown(cancel_futures=True)

    def _map(self, function: Callable[[int], _Result], rows: npt.NDArray[np.int64]) -> list[_Result]:
        items = [int(row) for row in rows]
        return list(self.threads.map(function, items) if self.threads is not None else map(function, items))

    def _decode_all(self, rows: npt.NDArray[np.int64]) -> Canvases:
        if not len(rows):
            return np.empty((0, self.canvas, self.canvas, 3), np.uint8)
        return np.stack(self._map(self._decode, rows))

    def _digest(self, row: int) -> bytes:
        try:
            return hashlib.sha256(self.store.read(int(self.rows[row]))).digest()
        except OSError:
            return b"unreadable"

    def _try(self, row: int) -> Canvases | BadImage:
        if self._cache is not None and self._cached[row]:
            return cast(Canvases, self._cache[row])
        try:
            canvas = self._decode(row)
            if self._cache is not None:
                self._cache[row], self._cached[row] = canvas, True
            return canvas
        except DataError as error:
            return BadImage(row, self.names[row], str(error).removeprefix(f"{self.names[row]}: ").splitlines()[0])

    def _decode(self, row: int) -> Canvases:
        try:
            data = self.store.read(int(self.rows[row]))
            return decode(data, self.canvas, self.interpolation, self.max_pixels)
        except (DataError, OSError) as error:
            raise DataError(
                f"{self.names[row]}: {error}\nmend or remove the file, or set data.on_bad_image: drop"
            ) from error
