"""The folder in which stores are kept from run to run, bounded in size: shards that were unused for longest go first.

Only files that carry our mark are ever looked at, and none that a living process has in use is removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from homing.features.key import backbone_digest, store_key
from homing.features.lease import in_use
from homing.features.shards import Kind, Shard
from homing.features.store import ROWS_PER_SHARD, Store
from homing.outputs.artefact import MARK, host, is_alive, is_unfinished, made_from, mark_done
from homing.user_cache import INDEX_FOLDER, INDEX_NAMES, user_cache

FEATURES, CANVASES, READABLE, FACTS = "features", "decoded images", "which images can be read", "facts of pools"
INDICES = "indices of archives"
_WHAT = "homing store"
_FACTS = "pool-*.safetensors"
_OF_OTHER_HOSTS = 24 * 3600.0  # seconds, after which a data file without an index was left behind


@dataclass(frozen=True)
class Entry:
    """A shard that is kept, or what was found out from features.

    Attributes:
        what: FEATURES, CANVASES, READABLE, FACTS or INDICES.
        paths: Its files; without the first one it is not there.
        bytes: Of all of them.
        used: When it was last of use, seconds since 1970.
        in_use: By a living process.
    """

    what: str
    paths: tuple[Path, ...]
    bytes: int
    used: float
    in_use: bool

    def remove(self) -> bool:
        """Take it away; whether it is gone."""
        for path in self.paths:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return not self.paths[0].exists()


class FeatureCache:
    """A folder of stores.

    Args:
        folder: Made when a store is opened.
        max_bytes: Of all shards together. What is in use stays even where it takes more, and goes when it no longer is.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def open(
        self,
        facts: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: str = "float32",
        *,
        rows_per_shard: int = ROWS_PER_SHARD,
    ) -> Store:
        """The store whose rows follow from some facts, leased until it is closed.

        Args:
            facts: From `feature_facts` or `canvas_facts`.
            shape: Of a row: (D,) for features, (S, S, 3) for canvases, (0,) for nothing but goodness.
            dtype: float32, float16 or uint8.
            rows_per_shard: Of a full shard.

        Raises:
            OSError: The folder cannot be written to, or holds something else.
        """
        kind = Kind(store_key(facts, shape, dtype), shape, dtype)
        place = self.folder / kind.key
        place.mkdir(parents=True, exist_ok=True)
        if not _is_ours(place):
            # another process may be at work on the same mark
            foreign = not all(path.name == MARK or is_unfinished(path) for path in place.iterdir())
            if foreign and not _is_ours(place):
                raise FileExistsError(f"{place}: holds something that is no store of homing's")
            mark_done(place, {"what": _WHAT, "key": kind.key})
        if not os.access(place, os.W_OK):
            raise PermissionError(f"{place}: cannot be written to")
        _remove_orphans(place)
        return Store(place, kind, rows_per_shard=rows_per_shard, on_growth=self.shrink)

    def entries(self) -> list[Entry]:
        """All that is kept, the longest unused first."""
        found = [entry for place in self._stores() for entry in _entries(place)]
        for path in sorted((self.folder / INDEX_FOLDER).glob(INDEX_NAMES)):  # read whole, so never in use for long
            found += _entry(INDICES, path, in_use=False)
        return sorted(found, key=lambda entry: (entry.used, entry.paths[0].name))

    def clear(self) -> list[Entry]:
        """Remove all that is not in use, as far as this user may; returns what that was."""
        removed = [entry for entry in self.entries() if not entry.in_use and entry.remove()]
        for place in self._stores():
            with suppress(OSError):
                if not any(path.name != MARK for path in place.iterdir()):
                    (place / MARK).unlink(missing_ok=True)
                    place.rmdir()
        with suppress(OSError):
            (self.folder / INDEX_FOLDER).rmdir()
        return removed

    def shrink(self) -> None:
        """Remove what was unused for longest, until the rest fits."""
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total <= self.max_bytes:
                return
            if not entry.in_use and entry.remove():
                total -= entry.bytes

    def _stores(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from (path for path in sorted(self.folder.iterdir()) if path.is_dir() and _is_ours(path))


def open_first(
    caches: Sequence[FeatureCache],
    facts: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Store:
    """The store in the first of some caches that can be written to; of the others `say` hears a warning.

    Raises:
        OSError: The last one cannot be written to either.
    """
    for cache in caches[:-1]:
        try:
            return cache.open(facts, shape, dtype)
        except OSError as error:
            say(f"warning: features cannot be kept in {cache.folder} ({error.strerror or error})")
    return caches[-1].open(facts, shape, dtype)


def _is_ours(place: Path) -> bool:
    facts = made_from(place)
    return facts is not None and facts.get("what") == _WHAT and facts.get("key") == place.name


def _entries(place: Path) -> Iterator[Entry]:
    held = in_use(place)
    with suppress(OSError):
        shards = [Shard(place, path.stem) for path in place.iterdir() if path.suffix == ".parquet"]
        shards = [shard for shard in shards if shard.owner is not None]
        what = _what_of(shards)
        for shard in shards:
            yield from _entry(what, shard.index, shard.data, in_use=held is None or shard.name in held)
        for path in list(place.glob(_FACTS)):
            yield from _entry(FACTS, path, in_use=held is None or bool(held))


def _entry(what: str, *paths: Path, in_use: bool) -> Iterator[Entry]:
    """One, or none where another run has evicted it; a shard need hold no data."""
    with suppress(FileNotFoundError):
        about = paths[0].stat()
        size = about.st_size
        with suppress(FileNotFoundError):
            size += sum(path.stat().st_size for path in paths[1:])
        yield Entry(what, paths, size, about.st_mtime, in_use)


def _what_of(shards: Sequence[Shard]) -> str:
    """What the rows of a store are, as the first index says that can be read."""
    for shard in shards:
        with suppress(OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            about = json.loads((parquet.read_schema(shard.index).metadata or {})[b"homing"])
            if about["shape"] == [0]:
                return READABLE
            return CANVASES if about["dtype"] == "uint8" else FEATURES
    return FEATURES


def _remove_orphans(place: Path) -> None:
    """Data files whose writer died before their index, or whose rows were merged while somebody read them."""
    with suppress(OSError):
        left = [path for path in place.glob("*.npy") if not path.with_suffix(".parquet").exists()]
        held = in_use(place) if left else None
        for path in left:
            owner = Shard(place, path.stem).owner
            if owner is None or held is None or path.stem in held:
                continue
            if owner[0] == host():
                gone = not is_alive(owner[1])
            else:
                gone = time.time() - path.stat().st_mtime > _OF_OTHER_HOSTS
            if gone:
                path.unlink(missing_ok=True)


__all__ = ["Entry", "FeatureCache", "backbone_digest", "open_first", "user_cache"]
