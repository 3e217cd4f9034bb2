"""A Lance table as a pool's table: rows by position, of the version that was the newest when it was opened."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.object_store import RemoteFile
from homing.pools.pool import STATE_BYTES
from homing.pools.tables import Table, table_of
from homing.recipe.urls import is_url

_BLOCK_ROWS = 64
_NEAR = 8  # rows between two reads of one thread, up to which it is taken to go on in order
_BLOB = b"lance-encoding:blob"


def is_lance(path: str) -> bool:
    """Whether a path is called like a Lance table: a folder, or a URL."""
    return path.endswith(".lance") and (is_url(path) or Path(path).is_dir())


def open_lance(path: str, split: str | None = None) -> Table:
    """The newest version of a Lance table; later ones are not looked at.

    Raises:
        DataError: It cannot be read, or the extra that reads it is not installed.
    """
    if split is not None:
        raise DataError(f"{path}: a Lance table holds no splits, found split {split!r}; leave it out")
    try:
        import lance
    except ImportError:
        raise DataError(f"{path}: a Lance table is read with a further package: pip install 'homing[lance]'") from None
    try:
        part = LancePart(path, lance.dataset(path))
    except Exception as error:  # of many kinds, from Rust
        reason = re.sub(r",? \S+\.rs:\d+:\d+", "", str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as a Lance table: {reason}") from error
    if blobs := [field.name for field in part.schema if _BLOB in (field.metadata or {})]:
        raise DataError(
            f"{path}: the column {blobs[0]!r} is of Lance's blob encoding, which is not read; write it as plain bytes"
        )
    return replace(table_of(path, f"Lance table, version {part.version}", [part], {}, ()), version=part.version)


class LancePart:
    """A Lance table at one version.

    Args:
        path: Folder or URL.
        dataset: As `lance.dataset` opened it.
    """

    def __init__(self, path: str, dataset: Any) -> None:
        self.version, self._dataset = str(dataset.version), dataset
        self.path = RemoteFile(path, 0, self.version) if is_url(path) else Path(path)
        self.schema: pa.Schema = dataset.schema
        self.num_rows = int(dataset.count_rows())
        # files of a table are never changed, only replaced by others with names of their own
        files = [str(file) for fragment in dataset.get_fragments() for file in fragment.data_files()]
        text = "\0".join((path, self.version, *files))
        self._state = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=STATE_BYTES).digest()
        self._last = threading.local()

    def state(self) -> bytes | None:
        """Of path, version and files."""
        return self._state

    def row(self, name: str, number: int) -> pa.Scalar | None:
        """One row, unless the thread reads row after row: those come in blocks."""
        last, self._last.row = getattr(self._last, "row", None), number
        if last is not None and 0 <= number - last <= _NEAR:
            return None
        return self._take(name, [number])[0]

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column, or one field of it."""
        found = self._dataset.to_table(columns=[name]).column(name)
        return found if field is None else pc.struct_field(found, [field])

    def starts(self, name: str) -> npt.NDArray[np.int64]:
        """First row of each block, and the end; int64 [blocks + 1]."""
        return np.append(np.arange(0, self.num_rows, _BLOCK_ROWS, dtype=np.int64), self.num_rows)

    def block(self, name: str, number: int) -> pa.ChunkedArray:
        """One block of a column."""
        start = number * _BLOCK_ROWS
        return self._take(name, list(range(start, min(start + _BLOCK_ROWS, self.num_rows))))

    def num_nulls(self, name: str, field: str) -> int | None:
        """Of a field of a column, where every image lies inside; None rather than reading all of them."""
        return None

    def check(self) -> None:
        """Nothing: blocks are copies, and a version is never changed."""

    def close(self) -> None:
        """Nothing: the table holds no file open."""

    def _take(self, name: str, rows: list[int]) -> pa.ChunkedArray:
        try:
            return self._dataset.take(rows, columns=[name]).column(name)
        except Exception as error:  # of many kinds, from Rust
            raise OSError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
