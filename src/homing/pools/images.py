"""Canvases by row: decoded by threads ahead of their use, kept as far as memory allows, never a neighbour's pixels."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.launch import processes_here
from homing.pools.decoding import decode, is_nearly_constant
from homing.pools.pool import ImageStore
from homing.pools.row_cache import DiskCanvases, KeptCanvases, RowCache
from homing.terminal import in_a_line
from homing.threads import usable_cores

Canvases = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Digests = npt.NDArray[np.uint8]
_CHUNK = 32  # rows that one thread decodes at a time: what a future costs is nothing beside it
_BATCH = 256


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: its row, its id with its role, and why."""

    row: int
    name: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """Some rows, decoded.

    Attributes:
        rows: int64 [B].
        good: bool [B]: which of them have canvases.
        canvases: uint8 [good.sum(), canvas, canvas, 3], in the order of the rows.
        bad: Those that cannot be decoded.
        digests: uint8 [B, 32]: sha256 of the bytes that were decoded; zeros where they could not be had, or where
            nobody asked.
        states: uint8 [B, 16]: of the files after they were read; zeros where nobody asked.
    """

    rows: Numbers
    good: Flags
    canvases: Canvases
    bad: list[BadImage]
    digests: Digests
    states: npt.NDArray[np.uint8]

    def blank(self) -> list[int]:
        """Rows whose canvas is of one colour as good as throughout: black, for one, where numbers fill no type."""
        rows = self.rows[self.good].tolist()
        return [row for row, canvas in zip(rows, self.canvases, strict=True) if is_nearly_constant(canvas)]


def describe_blank(names: Sequence[str], total: int) -> str:
    """One sentence on images that are of one colour; names: of them, at least one."""
    return (
        f"{len(names):,} of {total:,} images are black, or of one colour as good as throughout (first:"
        f" {in_a_line(names[0])}); where the numbers of such a file"
        " do not fill their type (12 bits in 16, say), scale them and write it anew"
    )


class Images:
    """Decoded canvases of a store's rows. Safe to use from several threads.

    Args:
        store: Encoded images.
        rows: Row of the store for each row here, int64 [N].
        names: What to call each row in messages.
        canvas: Side of a canvas, pixels.
        interpolation: Of the resize to the canvas.
        max_pixels: A larger picture is bad.
        cache_gb: Memory that decoded canvases may take.
        cached_first: Rows whose canvases are kept before all others, int64; then the others, the first ones first, as
            many as fit.
        workers: Threads that decode; 0 decodes in the caller's thread; None for as many as there are cores at hand.
    """

    def __init__(
        self,
        store: ImageStore,
        rows: Numbers,
        names: Sequence[str],
        *,
        canvas: int,
        interpolation: str = "bicubic",
        max_pixels: int = 64_000_000,
        cache_gb: float = 2.0,
        cached_first: Numbers | None = None,
        workers: int | None = 0,
    ) -> None:
        self.store, self.rows, self.names = store, rows, names
        self.canvas, self.interpolation, self.max_pixels = canvas, interpolation, max_pixels
        workers = _cores() if workers is None else workers
        self.workers = workers
        self.threads = ThreadPoolExecutor(workers, "decode") if workers else None
        self._memory = RowCache(len(rows), canvas, cache_gb, cached_first)
        self._disk: DiskCanvases | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the same images, with threads of its own and nothing kept in memory."""
        return {**vars(self), "threads": None, "_memory": RowCache(len(self), self.canvas, 0.0, None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.threads = ThreadPoolExecutor(self.workers, "decode") if self.workers else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_cached(self) -> int:
        """Rows whose canvases are, or will be, kept in memory."""
        return len(self._memory.canvases)

    def attach(self, kept: KeptCanvases, digests: Digests) -> None:
        """From now on take canvases from disk where they are there.

        Args:
            kept: Canvases of the rows here, from a scan.
            digests: uint8 [N, 16]: beginning of the sha256 of the bytes that each was decoded from.
        """
        self._disk = DiskCanvases(kept, digests, np.arange(len(self)))

    def fetch(self, rows: Numbers) -> Canvases:
        """Canvases of some rows; uint8 [len(rows), canvas, canvas, 3].

        Raises:
            DataError: An image cannot be decoded; names it.
        """
        return self.checked(self._start(rows, False, None, _empty).result()).canvases

    def loading(
        self,
        batches: Iterable[Numbers],
        *,
        ahead: int = 2,
        digest: bool = False,
        known: Callable[[Digests], Flags] | None = None,
        allocate: Callable[[tuple[int, ...]], Canvases] | None = None,
    ) -> Iterator[Loaded]:
        """Rows of each batch, decoded while the batches before them are in use.

        Args:
            batches: int64 [B] each.
            ahead: Batches that are decoded ahead.
            digest: Tell the digests of the bytes, and the states of the files after they were read.
            known: Which of some digests (uint8 [m, 32]) need not be decoded: such rows are neither good nor bad.
            allocate: Makes the array that canvases of a batch go to, by its shape (memory that a device can copy from).
        """
        allocate = allocate or _empty
        waiting: deque[_Pending] = deque()
        try:
            for batch in batches:
                waiting.append(self._start(batch, digest, known, allocate))
                if len(waiting) > (ahead if self.threads is not None else 0):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for pending in waiting:
                pending.cancel()

    def checked(self, loaded: Loaded) -> Loaded:
        """The same, where all of its rows are good.

        Raises:
            DataError: Names the first that is not.
        """
        if loaded.bad:
            first = loaded.bad[0]
            raise DataError(f"{first.name}: {first.reason}\nmend or remove the file, or set data.on_bad_image: drop")
        return loaded

    def find_bad(self, advance: Callable[[int], None] = lambda count: None) -> list[BadImage]:
        """Decode every row once and list those that cannot be; fills the cache on the way."""
        return self.find_odd(advance)[0]

    def find_odd(
        self,
        advance: Callable[[int], None] = lambda count: None,
        see: Callable[[Loaded], None] = lambda loaded: None,
    ) -> tuple[list[BadImage], list[int]]:
        """Decode every row once: those that cannot be decoded, and rows of those that are of one colour.

        Args:
            advance: Called with the number of rows done.
            see: Looks on.
        """
        bad: list[BadImage] = []
        blank: list[int] = []
        rows = np.arange(len(self))
        for loaded in self.loading(rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)):
            bad += loaded.bad
            blank += loaded.blank()
            see(loaded)
            advance(len(loaded.rows))
        return bad, blank

    def digest(self, rows: Numbers, advance: Callable[[int], None] = lambda count: None) -> str:
        """sha256 over the encoded bytes of some rows in their order, 64 hexadecimal digits; nothing is decoded."""
        digest = hashlib.sha256()
        for row in rows.tolist():
            try:
                digest.update(hashlib.sha256(self.store.read(int(self.rows[row]))).digest())
            except OSError:
                digest.update(b"unreadable")
            advance(1)
        return digest.hexdigest()

    def select(self, keep: Numbers) -> None:
        """Keep only these rows, in this order."""
        taken = getattr(self.names, "take", None)
        self.names = taken(keep) if taken is not None else [self.names[row] for row in keep.tolist()]
        self.rows = self.rows[keep]
        self._memory.select(keep)
        self._disk = None if self._disk is None else self._disk.select(keep)

    def close(self) -> None:
        """Stop the threads."""
        if self.threads is not None:
            self.threads.shutdown(cancel_futures=True)

    def states(self, rows: Numbers) -> npt.NDArray[np.uint8]:
        """What the files of some rows look like from outside, uint8 [len(rows), 16]; zeros where that is not known."""
        return self.store.states(self.rows[rows])

    def _start(
        self,
        rows: Numbers,
        digest: bool,
        known: Callable[[Digests], Flags] | None,
        allocate: Callable[[tuple[int, ...]], Canvases],
    ) -> _Pending:
        out = allocate((len(rows), self.canvas, self.canvas, 3))
        batch = _Batch(rows, out, digest, known)
        todo = np.arange(len(rows))
        if not digest:
            held = self._memory.take(rows, out)
            if self._disk is not None:
                on_disk = ~held & self._disk.has(rows)
                if on_disk.any():
                    out[on_disk] = self._disk.take(rows[on_disk])
                held |= on_disk
            batch.good[held] = True
            todo = np.flatnonzero(~held)
        size = _CHUNK if self.threads is None else max(1, min(_CHUNK, -(-len(todo) // self.threads._max_workers)))
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        if self.threads is None:
            for part in parts:
                self._load(batch, part)
            return _Pending(batch, [])
        return _Pending(batch, [self.threads.submit(self._load, batch, part) for part in parts])

    def _load(self, batch: _Batch, places: Numbers) -> None:
        """Read, digest and decode some of a batch, into their places in it."""
        encoded: list[tuple[int, bytes]] = []
        for place in places.tolist():
            try:
                data = self.store.read(int(self.rows[batch.rows[place]]))
            except (DataError, OSError) as error:
                self._note(batch, place, error)
                continue
            encoded.append((place, data))
        if batch.digest:
            encoded = self._not_on_disk(batch, self._unknown(batch, places, encoded))
        for place, data in encoded:
            try:
                canvas = decode(data, self.canvas, self.interpolation, self.max_pixels)
            except DataError as error:
                self._note(batch, place, error)
                continue
            except MemoryError as error:
                raise MemoryError(f"{self.names[int(batch.rows[place])]}: {error}") from error
            batch.canvases[place] = canvas
            batch.good[place] = True
            self._memory.put(int(batch.rows[place]), canvas)

    def _unknown(self, batch: _Batch, places: Numbers, encoded: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        batch.states[places] = self.states(batch.rows[places])
        if not encoded:
            return encoded
        read = np.array([place for place, _ in encoded])
        digests = np.frombuffer(b"".join(hashlib.sha256(data).digest() for _, data in encoded), np.uint8)
        batch.digests[read] = digests.reshape(-1, 32)
        if batch.known is None:
            return encoded
        known = batch.known(batch.digests[read])
        return [item for item, is_known in zip(encoded, known.tolist(), strict=True) if not is_known]

    def _not_on_disk(self, batch: _Batch, encoded: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """What must be decoded; canvases that were decoded from the same bytes before are taken from disk."""
        if self._disk is None or not encoded:
            return encoded
        places = np.array([place for place, _ in encoded])
        there = self._disk.of_bytes(batch.rows[places], batch.digests[places])
        if there.any():
            batch.canvases[places[there]] = self._disk.take(batch.rows[places[there]])
            batch.good[places[there]] = True
        return [item for item, is_there in zip(encoded, there.tolist(), strict=True) if not is_there]

    def _note(self, batch: _Batch, place: int, error: Exception) -> None:
        row = int(batch.rows[place])
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = (text.splitlines() or [type(error).__name__])[0]
        batch.bad.append((place, BadImage(row, self.names[row], reason)))


class _Batch:
    """A batch that threads are filling. The arrays are those of `Loaded`; bad: with their places."""

    def __init__(
        self, rows: Numbers, canvases: Canvases, digest: bool, known: Callable[[Digests], Flags] | None
    ) -> None:
        self.rows, self.canvases, self.digest, self.known = rows, canvases, digest, known
        self.good = np.zeros(len(rows), np.bool_)
        self.digests = np.zeros((len(rows), 32) if digest else (0, 32), np.uint8)
        self.states = np.zeros((len(rows), 16) if digest else (0, 16), np.uint8)
        self.bad: list[tuple[int, BadImage]] = []


class _Pending:
    def __init__(self, batch: _Batch, futures: list[Future[None]]) -> None:
        self.batch, self.futures = batch, futures

    def result(self) -> Loaded:
        for future in self.futures:
            future.result()
        batch = self.batch
        canvases = batch.canvases if batch.good.all() else batch.canvases[batch.good]
        bad = [item for _, item in sorted(batch.bad, key=lambda one: one[0])]
        return Loaded(batch.rows, batch.good, canvases, bad, batch.digests, batch.states)

    def cancel(self) -> None:
        for future in self.futures:
            future.cancel()


def _cores() -> int:
    """Of this process; several of one launcher share those of their machine."""
    return max(1, usable_cores() // processes_here(os.environ))


def _empty(shape: tuple[int, ...]) -> Canvases:
    return np.empty(shape, np.uint8)
