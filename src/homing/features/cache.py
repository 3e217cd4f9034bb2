"""The folder in which stores are kept from run to run, bounded in size: shards that were unused for longest go first.

Only files that carry our mark are ever looked at, and none that a living process has in use is removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homing.features.key import backbone_digest, store_key
from homing.features.lease import in_use
from homing.features.shards import Kind, Shard
from homing.features.store import ROWS_PER_SHARD, Store
from homing.outputs.artefact import MARK, host, is_alive, is_unfinished, made_from, mark_done

_WHAT = "homing store"
_OF_OTHER_HOSTS = 24 * 3600.0  # seconds, after which a data file without an index was left behind


def user_cache() -> Path | None:
    """Where features are kept unless a recipe says otherwise: $HOMING_CACHE, else below the user's cache folder.

    None for a user without a home folder (of a container that knows a number alone).
    """
    if own := os.environ.get("HOMING_CACHE"):
        return Path(own)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "homing"
    try:
        return Path.home() / ".cache" / "homing"
    except RuntimeError:
        return None


@dataclass(frozen=True)
class Entry:
    """A shard that is kept. used: when it was last of use, seconds since 1970; in_use: by a living process."""

    shard: Shard
    bytes: int
    used: float
    in_use: bool


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
        """All shards, the longest unused first."""
        found = [entry for place in self._stores() for entry in _entries(place)]
        return sorted(found, key=lambda entry: (entry.used, entry.shard.name))

    def clear(self) -> tuple[int, int]:
        """Remove all shards that are not in use; returns how many, and their bytes together."""
        removed = [entry for entry in self.entries() if not entry.in_use]
        for entry in removed:
            entry.shard.remove()
        for place in self._stores():
            for path in place.glob("pool-*.safetensors"):  # what was found out from the features
                path.unlink(missing_ok=True)
            if not any(path.name != MARK for path in place.iterdir()):
                (place / MARK).unlink(missing_ok=True)
                with suppress(OSError):
                    place.rmdir()
        return len(removed), sum(entry.bytes for entry in removed)

    def shrink(self) -> None:
        """Remove the shards that were unused for longest, until the others fit."""
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total <= self.max_bytes:
                return
            if not entry.in_use:
                entry.shard.remove()
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
        for path in list(place.iterdir()):
            shard, size = Shard(place, path.stem), 0
            if path.suffix != ".parquet" or shard.owner is None:
                continue
            with suppress(FileNotFoundError):  # another run evicted it, or it holds no data
                about = path.stat()
                size = about.st_size
                with suppress(FileNotFoundError):
                    size += shard.data.stat().st_size
                yield Entry(shard, size, about.st_mtime, held is None or shard.name in held)


def _remove_orphans(place: Path) -> None:
    """Data files whose writer died before their index."""
    with suppress(OSError):
        for path in list(place.iterdir()):
            owner = Shard(place, path.stem).owner
            if path.suffix != ".npy" or owner is None or path.with_suffix(".parquet").exists():
                continue
            if owner[0] == host():
                gone = not is_alive(owner[1])
            else:
                gone = time.time() - path.stat().st_mtime > _OF_OTHER_HOSTS
            if gone:
                path.unlink(missing_ok=True)


__all__ = ["Entry", "FeatureCache", "backbone_digest", "open_first", "user_cache"]
