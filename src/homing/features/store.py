"""A store: rows of one shape, found by what an image file looks like from outside, or by the sha256 of its bytes.

A store is a folder for one key, which says all that its rows depend on but the images. It holds any number of shards,
written by any number of processes; nothing in it is ever changed, so nothing stale can be read and nobody has to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from homing.features.keys import KeySet
from homing.features.lease import Lease
from homing.features.merge import merge_small
from homing.features.places import BAD, UNKNOWN, Finder, Places
from homing.features.shard_writer import ShardWriter
from homing.features.shards import Bytes, DamagedShardError, Index, Kind, Shard, read_index
from homing.features.view import StoredRows
from homing.outputs.artefact import remove_leftovers

ROWS_PER_SHARD = 65_536
SECONDS_PER_SHARD = 180.0
"""A shard is finished after so many rows, or so long: a kill loses no more than that."""


_NONE = np.empty(0, np.int32)


class Store:
    """Rows on disk. Made by `FeatureCache.open`; as a context it gives back its lease at the end.

    Args:
        folder: Of this key.
        kind: What the rows are.
        rows_per_shard: Of a full shard.
        on_growth: Called when a shard was finished, and when the lease is given back.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        *,
        rows_per_shard: int = ROWS_PER_SHARD,
        on_growth: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.kind, self.rows_per_shard, self.on_growth = folder, kind, rows_per_shard, on_growth
        self.lease = Lease(folder)
        remove_leftovers(folder)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lease back: from now on the shards may be evicted, and small ones merged."""
        self.lease.give_back()
        merge_small(self.folder, self.kind, self.rows_per_shard)
        self.on_growth()

    def writer(self) -> ShardWriter:
        """A new shard."""
        return ShardWriter(self.folder, self.kind)

    def is_full(self, shard: ShardWriter) -> bool:
        """Whether a shard should be finished."""
        return len(shard) >= self.rows_per_shard or time.monotonic() - shard.started > SECONDS_PER_SHARD

    def check(self) -> None:
        """Compare all shards with their digests; what is damaged is removed, and scanned anew."""
        for _ in self._indices(True):
            pass

    def look_up(self, states: Bytes) -> Places:
        """Where rows lie, by the states of their files; nothing is read but the indices.

        Args:
            states: uint8 [N, 16]; rows of zeros are found nowhere.
        """
        by_state = Finder(states, "state")
        for shard, index in self._indices(False):
            by_state.look_in(shard, index)
        found = by_state.places()
        aliases = np.flatnonzero((found.shard == UNKNOWN) & found.digests.any(1))
        if len(aliases):  # known under another name: their rows lie where those of the same bytes do
            found.put(aliases, self.find(found.digests[aliases]))
        return found

    def find(self, digests: Bytes) -> Places:
        """Where rows lie, by the digests of their images' bytes. digests: uint8 [N, 16 or more]."""
        finder = Finder(digests, "digest")
        for shard, index in self._indices(False):
            finder.look_in(shard, index)
        found = finder.places()
        found.digests = np.ascontiguousarray(digests[:, : found.digests.shape[1]])
        return found

    def known(self) -> Known | None:
        """Everything that is in the store, by digest; None where there is nothing."""
        known = Known(self._indices(False))
        return known if len(known) else None

    def view(self, places: Places) -> StoredRows:
        """The values of rows, to be read block by block. The shards are in use from now on, until `close`."""
        for shard in places.shards:
            shard.touch()
        self.lease.narrow_to(shard.name for shard in places.shards)
        return StoredRows(self.kind, places.shards, places.shard, places.position, on_read=self.lease.refresh)

    def shards(self) -> list[Path]:
        """Indices of the shards, sorted by name."""
        with suppress(OSError):
            return sorted(
                path
                for path in self.folder.iterdir()
                if path.suffix == ".parquet" and Shard(self.folder, path.stem).owner
            )
        return []

    def _indices(self, verify: bool) -> Iterator[tuple[Shard, Index]]:
        for path in self.shards():
            try:
                found = read_index(path, self.kind, verify=verify)
            except DamagedShardError:
                Shard(self.folder, path.stem).remove()  # carries our mark and is not what we wrote
                continue
            except OSError:
                continue
            if found is not None:
                yield found


class Known:
    """Which digests a store has rows for, all of it in memory: some 44 bytes a row.

    Args:
        indices: Shards and what they hold.
    """

    def __init__(self, indices: Iterator[tuple[Shard, Index]]) -> None:
        self.shards: list[Shard] = []
        self._reasons: dict[int, str] = {}
        digests, positions, numbers, total = [np.empty((0, 16), np.uint8)], [_NONE], [_NONE], 0
        for shard, index in indices:
            rows = np.flatnonzero(~index.is_alias())
            self._reasons |= {total + int(np.searchsorted(rows, at)): why for at, why in index.reasons.items()}
            digests.append(np.ascontiguousarray(index.digests[rows, :16]))
            positions.append(index.positions[rows])
            numbers.append(np.full(len(rows), len(self.shards), np.int32))
            self.shards.append(shard)
            total += len(rows)
        self._keys = KeySet(np.concatenate(digests))
        self._position, self._shard = np.concatenate(positions), np.concatenate(numbers)
        self._row = self._keys.one_row_each()

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, digests: Bytes) -> npt.NDArray[np.bool_]:
        """Which digests are known; bool [M]. digests: uint8 [M, 16 or more]."""
        return self._keys.find(digests) >= 0

    def find(self, digests: Bytes) -> Places:
        """Where rows with these digests lie. digests: uint8 [M, 16 or more]."""
        found, places = self._keys.find(digests), Places.nowhere(len(digests))
        for shard in self.shards:
            places.number_of(shard)
        places.digests = np.ascontiguousarray(digests[:, :16])
        hits = np.flatnonzero(found >= 0)
        rows = self._row[found[hits]]
        places.shard[hits], places.position[hits] = self._shard[rows], self._position[rows]
        for hit, row in zip(hits.tolist(), rows.tolist(), strict=True) if self._reasons else ():
            if row in self._reasons:
                places.shard[hit], places.reasons[hit] = BAD, self._reasons[row]
        return places
