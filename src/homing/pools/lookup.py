"""Encoded images by sample id, as a run names them: for corpora that are written long after the pools were read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from homing.errors import DataError
from homing.pools.files import FolderImages, read_regular
from homing.pools.pool import Pool
from homing.pools.reading import files_are_ids, folder_of, name_of, read_pool
from homing.pools.texts import Texts

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec


@dataclass(frozen=True)
class StoredImage:
    """An encoded image: the file that it is (None for one inside a table), or its bytes."""

    file: Path | None
    data: bytes | None = None

    def read(self) -> bytes:
        """The encoded bytes; raises OSError where they cannot be had."""
        if self.data is not None:
            return self.data
        assert self.file is not None
        return read_regular(self.file)


class RowsById:
    """Rows of many ids, found by hash: 16 bytes a row, where a dict takes 150.

    Args:
        ids: One a row, all different.
    """

    def __init__(self, ids: Texts) -> None:
        self._ids = ids
        hashes = np.fromiter(map(_hash, ids), np.uint64, len(ids))
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def find(self, sample_id: str) -> int | None:
        """The row with an id; None where there is none."""
        wanted = _hash(sample_id)
        place = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        while place < len(self._hashes) and int(self._hashes[place]) == wanted:
            if self._ids[row := int(self._rows[place])] == sample_id:
                return row
            place += 1
        return None


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class ImagesById:
    """Images of one or several pools by id.

    Where ids are the paths of files nothing is listed and nothing kept; other pools are read.

    Args:
        specs: The source pools of a recipe; with more than one, ids carry the pool's name in front.
    """

    def __init__(self, specs: Sequence[PoolSpec]) -> None:
        self._pools = {name_of(spec): _PoolById(spec) for spec in specs}

    def open(self) -> None:
        """Read what has to be read of the pools.

        Raises:
            DataError: One of them holds no images.
        """
        for pool in self._pools.values():
            pool.open()

    def find(self, source: str, sample_id: str) -> StoredImage:
        """The image of a sample.

        Args:
            source: Name of its pool.
            sample_id: As in `rates.parquet`.

        Raises:
            DataError: The pool or the image is not there (any more).
        """
        if source not in self._pools:
            raise DataError(f"{sample_id}: there is no pool {source!r}; the recipe names {', '.join(self._pools)}")
        inside = sample_id.removeprefix(f"{source}/") if len(self._pools) > 1 else sample_id
        return self._pools[source].find(inside)


class _PoolById:
    def __init__(self, spec: PoolSpec) -> None:
        self.spec, self.root, self.by_path = spec, folder_of(spec), files_are_ids(spec)

    def open(self) -> None:
        if not self.by_path:
            try:
                _ = self._pool
            except DataError as error:
                raise DataError(f"{error}; rows without pictures come as a table: --output rates.parquet") from error

    @cached_property
    def _rows(self) -> RowsById:
        return RowsById(self._pool.ids)

    @cached_property
    def _pool(self) -> Pool:
        return read_pool(self.spec, sets=None)

    def find(self, sample_id: str) -> StoredImage:
        if self.by_path:
            path = PurePosixPath(sample_id)
            file = self.root / path
            if path.is_absolute() or ".." in path.parts or not file.is_file():
                raise self._gone(sample_id)
            return StoredImage(file)
        row = self._rows.find(sample_id)
        if row is None:
            raise self._gone(sample_id)
        store = self._pool.store
        if isinstance(store, FolderImages):
            return StoredImage(store.path(int(self._pool.rows[row])))
        try:
            return StoredImage(None, self._pool.read(row))
        except OSError as error:
            raise DataError(f"{self.spec.path}: {sample_id}: {error}") from error

    def _gone(self, sample_id: str) -> DataError:
        return DataError(
            f"{self.spec.path}: there is no image {sample_id!r} (any more), though the run rated it;"
            " put the pool back as it was, or use --column-only, which needs no images"
        )
