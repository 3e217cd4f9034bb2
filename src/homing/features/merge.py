"""Many small shards become one: a pool that grew a little a hundred times would be looked up in a hundred files.

Merging changes nothing of what the store says. The new shard takes the place of its parts in the order of shards; it is
whole before the first of them goes, so a kill leaves both, and the same answers. Nothing goes that a reader may have
found: the indices of the parts go first, so nobody finds them any more, and their rows only if nobody reads the store
then. Otherwise the rows stay behind without an index, and are removed like those of a dead writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from homing.features.lease import Lease, in_use
from homing.features.shard_writer import ShardWriter
from homing.features.shards import DamagedShardError, Kind, Shard, read_index

_AT_LEAST = 8  # shards: fewer are not worth the writing
_SMALL = 16  # of these fill a shard
_BYTES = 64 << 20  # of a small one at most


@dataclass(frozen=True)
class _Part:
    shard: Shard
    rows: int


def merge_small(folder: Path, kind: Kind, rows_per_shard: int) -> None:
    """Merge small shards that are neighbours, where nobody reads or fills the store.

    Args:
        folder: Of the store.
        kind: What its rows are.
        rows_per_shard: Of a full shard.
    """
    if sum(path.suffix == ".parquet" for path in _files(folder)) < _AT_LEAST:
        return
    lease = Lease(folder)  # of two that would merge, each sees the other's, and both leave it
    try:
        held = in_use(folder, but=lease.path)
        for parts in [] if held is None else list(_groups(folder, rows_per_shard, held)):
            with suppress(OSError, DamagedShardError):  # a full disk; a damaged shard is seen to by the next scan
                _merge(folder, kind, parts, lease)
    finally:
        lease.give_back()


def _groups(folder: Path, rows_per_shard: int, held: set[str]) -> Iterator[list[Shard]]:
    """Small shards in a row, as many as fill one."""
    group: list[Shard] = []
    rows = 0
    for part in [*_parts(folder), None]:
        fits = part is not None and part.shard.name not in held and _is_small(part, rows_per_shard)
        if part is None or not fits or rows + part.rows > rows_per_shard:
            if len(group) >= _AT_LEAST:
                yield group
            group, rows = [], 0
        if part is not None and fits:
            group.append(part.shard)
            rows += part.rows


def _parts(folder: Path) -> list[_Part]:
    """All shards, in their order."""
    found = []
    for path in sorted(path for path in _files(folder) if path.suffix == ".parquet"):
        shard = Shard(folder, path.stem)
        if shard.owner is not None:
            with suppress(OSError, pa.ArrowException):
                found.append(_Part(shard, parquet.read_metadata(path).num_rows))
    return found


def _is_small(part: _Part, rows_per_shard: int) -> bool:
    with suppress(FileNotFoundError):
        return part.rows * _SMALL <= rows_per_shard and part.shard.data.stat().st_size <= _BYTES
    return part.rows * _SMALL <= rows_per_shard  # it need hold no rows


def _merge(folder: Path, kind: Kind, shards: list[Shard], lease: Lease) -> None:
    found = [read for shard in shards if (read := read_index(shard.index, kind, verify=True)) is not None]
    if len(found) < len(shards):
        return  # one of them is no shard of ours
    used = max(shard.index.stat().st_mtime_ns for shard in shards)
    with ShardWriter(folder, kind, shards[-1].begun + 1) as writer:
        for shard, index in found:
            here = index.positions >= 0
            values = np.empty((int(here.sum()), *kind.shape), kind.dtype)
            if values.nbytes:
                values = np.load(shard.data)[index.positions[here]]
            writer.add(index.states, index.digests, values, here, index.reasons)
    with suppress(OSError):
        os.utime(writer.shard.index, ns=(used, used))
    for shard in shards:
        shard.index.unlink(missing_ok=True)
    others = in_use(folder, but=lease.path)
    for shard in shards:
        if others is not None and shard.name not in others:
            shard.data.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []
