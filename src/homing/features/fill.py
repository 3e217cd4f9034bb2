"""Read what is missing, put it through the model, write shards: the inner loop of every scan, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from homing.features.forward import forward
from homing.features.kept_looks import KeptLooks
from homing.features.places import BAD, Places
from homing.features.shard_writer import ShardWriter
from homing.features.shards import NOT_HERE, Bytes
from homing.features.store import Known, Store
from homing.memory import trim_heap
from homing.models.inputs import ImageInputs, batches_of
from homing.pools.images import Loaded
from homing.pools.looks import looks_of
from homing.pools.order import Rows

_TICK = 0.02  # seconds: clocks of file systems are no finer, so a later change is seen only after so long


class Witness(Protocol):
    """Keeps what a model computes on the way to the features."""

    def watching(self) -> AbstractContextManager[None]:
        """Look on while batches go through the model."""
        ...

    def note(self, rows: Rows) -> None:
        """Which rows the next batch that was seen begins with, int64; it may have been filled up."""
        ...


class Filler:
    """Scans rows into a store.

    Args:
        store: Where they go.
        pictures: Pictures by row.
        model: Its features are stored; None: canvases, or nothing, as the store's shape says.
        device: Where the model is.
        precision: fp32 or bf16.
        batch_size: Images at a time.
        witness: Sees the forward passes, and is told which rows are in each.
    """

    def __init__(
        self,
        store: Store,
        pictures: ImageInputs,
        model: nn.Module | None,
        device: torch.device,
        precision: str,
        batch_size: int,
        witness: Witness | None = None,
    ) -> None:
        self.store, self.pictures, self.model, self.witness = store, pictures, model, witness
        self.device, self.precision, self.batch_size = device, precision, batch_size

    def fill(self, rows: Rows, advance: Callable[[int], None], expected: Bytes | None = None) -> tuple[Places, int]:
        """Scan some rows that the store does not know by their states.

        Args:
            rows: int64 [n].
            advance: Called with the number of rows done.
            expected: uint8 [n, 16]: digests that the store knows for the states of these files, where they are to be
                verified.

        Returns:
            Where each of them lies now, and how many went through the model.
        """
        found, done, passed = Places.nowhere(len(rows)), 0, 0
        if not len(rows):
            return found, 0
        self.store.lease.hold_all()
        before = self.pictures.images.states(rows)
        time.sleep(_TICK)
        known, digests = self.store.known(), found.digests.copy() if expected is None else expected
        batches = self._batches(rows, known)
        looks = KeptLooks(self.store.folder)
        while done < len(rows):
            with self.store.writer() as shard:
                for values, loaded in batches:
                    some = slice(done, done + len(loaded.rows))
                    part = self._place(shard, values, loaded, known, before[some], digests[some])
                    found.put(np.arange(some.start, some.stop), part)
                    looks.add(loaded.digests[loaded.good], looks_of(loaded.canvases))
                    done, passed = some.stop, passed + int(loaded.good.sum())
                    advance(len(loaded.rows))
                    if self.store.is_full(shard):
                        break
            looks.keep()
            self.store.on_growth()
            trim_heap()
        return found, passed

    def _batches(self, rows: Rows, known: Known | None) -> Iterator[tuple[npt.NDArray[Any], Loaded]]:
        """What is to be stored of the good rows of each batch."""
        seen = None if known is None else known.has
        parts = batches_of(rows, self.batch_size)
        if self.model is None:
            for loaded in self.pictures.images.loading(parts, digest=True, known=seen):
                nothing = np.empty((len(loaded.canvases), 0), self.store.kind.dtype)
                yield (loaded.canvases if self.store.kind.row_bytes else nothing), loaded
            return
        training = self.model.training
        self.model.eval()
        width, dtype = self.store.kind.shape, self.store.kind.dtype
        try:
            examined, witness = self.pictures.examining(parts, seen), self.witness
            with nullcontext() if witness is None else witness.watching():
                for features, loaded in forward(self.model, examined, self.device, self.precision, self.batch_size):
                    if witness is not None and features is not None:
                        witness.note(loaded.rows[loaded.good])
                    yield (np.empty((0, *width), dtype) if features is None else _stored(features, dtype)), loaded
        finally:
            self.model.train(training)

    def _place(
        self,
        shard: ShardWriter,
        values: npt.NDArray[Any],
        loaded: Loaded,
        known: Known | None,
        before: Bytes,
        digests: Bytes,
    ) -> Places:
        """Write a batch to a shard; where its rows lie now."""
        unchanged = (loaded.states == before).all(1)
        states = np.where(unchanged[:, None], before, 0).astype(np.uint8)
        why = {}
        if loaded.bad:
            place = {int(row): position for position, row in enumerate(loaded.rows)}
            why = {place[item.row]: item.reason for item in loaded.bad}
        elsewhere = ~loaded.good
        elsewhere[list(why)] = False
        part = Places.nowhere(len(loaded.rows))
        part.digests = np.ascontiguousarray(loaded.digests[:, :16])
        if known is not None and elsewhere.any():
            part.put(np.flatnonzero(elsewhere), known.find(loaded.digests[elsewhere]))
        expected = (part.digests == digests).all(1)
        # bytes that could not be had may be there the next time: nothing is remembered of them
        noted = np.flatnonzero(loaded.digests.any(1) & (~elsewhere | states.any(1) & ~expected))
        back = {int(row): position for position, row in enumerate(noted)}
        remembered = {back[row]: reason for row, reason in why.items() if row in back}
        positions = shard.add(states[noted], loaded.digests[noted], values, loaded.good[noted], remembered)
        here = noted[positions != NOT_HERE]
        part.shard[here] = part.number_of(shard.shard)
        part.position[here] = positions[positions != NOT_HERE]
        part.shard[list(why)] = BAD
        part.reasons |= why
        if blank := set(loaded.blank()):
            part.blank = [position for position, row in enumerate(loaded.rows.tolist()) if row in blank]
        return part


def _stored(features: Tensor, dtype: str) -> npt.NDArray[Any]:
    wanted = {"float32": torch.float32, "float16": torch.float16}[dtype]
    values: npt.NDArray[Any] = features.to(wanted).numpy()
    return values
