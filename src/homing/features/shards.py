"""One shard of a store: rows of one shape in a `.npy` file, and an index in parquet, which is written last.

A shard without an index is not there: the index is the mark that all its rows are on disk. Nothing is ever appended to
a shard that has one. Names are unique over hosts and processes, so writers need not know of each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

Bytes = npt.NDArray[np.uint8]
STATE, DIGEST = 16, 32
"""Bytes of a file's state and of a sha256."""
NOT_HERE = -1
"""Position of a row whose values lie in no data file: a bad image, or an alias of an image that is known already."""
HEADER = 256
"""Bytes before the rows: a .npy header of fixed size, so that it can be written when they are counted."""
_CHECKED_WHEN_OPENED = 32 << 20  # bytes: smaller data files are always compared with their digest
_NAME = re.compile(r"^[0-9a-f]{16}-(?P<host>[\w.]+)-(?P<pid>\d+)-\d+$")


@dataclass(frozen=True)
class Kind:
    """What the rows of a store are. shape: of one row; dtype: float16, float32 or uint8."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Of one row; 0 where rows hold nothing but whether an image is good."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Shard:
    """A shard: folder / name + .npy and .parquet. Names sort by the time when the shard was begun."""

    folder: Path
    name: str

    @property
    def data(self) -> Path:
        """Its rows."""
        return self.folder / f"{self.name}.npy"

    @property
    def index(self) -> Path:
        """What lies where."""
        return self.folder / f"{self.name}.parquet"

    def offset(self, position: int, kind: Kind) -> int:
        """Where in the data file a row begins, bytes."""
        return HEADER + position * kind.row_bytes

    @property
    def owner(self) -> tuple[str, int] | None:
        """Host and process that wrote it; None where the name is none of ours."""
        found = _NAME.match(self.name)
        return None if found is None else (found["host"], int(found["pid"]))

    @property
    def begun(self) -> int:
        """When it was, ns since 1970."""
        return int(self.name.partition("-")[0], 16)

    def touch(self) -> None:
        """Note that it is of use now, to the nanosecond: a file system's own clock is coarser."""
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self.index, ns=(now, now))

    def remove(self) -> None:
        """Take the shard away, the index first."""
        for path in (self.index, self.data):
            with suppress(OSError):
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Index:
    """What a shard's index says, in the order of its rows.

    Attributes:
        states: uint8 [M, 16]: of the file when it was read; 0 where that is not known.
        digests: uint8 [M, 32]: sha256 of the image's bytes.
        positions: int32 [M]: in the data file, or NOT_HERE.
        reasons: Why an image cannot be used, by place in the index.
    """

    states: Bytes
    digests: Bytes
    positions: npt.NDArray[np.int32]
    reasons: dict[int, str]

    def is_alias(self) -> npt.NDArray[np.bool_]:
        """Which rows say nothing but that a file has the bytes of another one; bool [M]."""
        alias: npt.NDArray[np.bool_] = self.positions < 0
        alias[list(self.reasons)] = False
        return alias


class DamagedShardError(ValueError):
    """A shard of ours that is not what was written."""


def read_index(path: Path, kind: Kind, *, verify: bool = False) -> tuple[Shard, Index] | None:
    """A shard and what it holds; None where the file is none of this store's.

    Args:
        path: Of the index.
        kind: What the rows must be.
        verify: Compare the data file with its digest whatever its size (small ones always are).

    Raises:
        DamagedShardError: It is of this store, but its rows are not what was written.
        OSError: It cannot be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {})[b"homing"])
            if about["key"] != kind.key:
                return None
            shard, rows = Shard(path.parent, path.stem), int(about["rows"])
            table = file.read(use_threads=False)
        reasons = table["reason"]
        found = Index(
            _from_arrow(table["state"], STATE),
            _from_arrow(table["sha256"], DIGEST),
            table["position"].to_numpy().astype(np.int32, copy=False),
            {} if reasons.null_count == len(reasons) else
            {place: text for place, text in enumerate(reasons.to_pylist()) if text is not None},
        )  # fmt: skip
        expected = (list(kind.shape), kind.dtype)
        if (about["shape"], about["dtype"]) != expected or int(found.positions.max(initial=-1)) >= rows:
            raise DamagedShardError(f"{path}: rows of {about['shape']} {about['dtype']}, not {expected}")
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DamagedShardError):
            raise
        return None  # a file that does not carry our mark is not ours to judge
    _check_data(shard, rows, kind, str(about["sha256"]), verify)
    return shard, found


def _check_data(shard: Shard, rows: int, kind: Kind, digest: str, verify: bool) -> None:
    if not rows or not kind.row_bytes:
        return
    try:
        size = shard.data.stat().st_size
        if size != shard.offset(rows, kind):
            raise DamagedShardError(f"{shard.data}: {size:,} bytes, not {shard.offset(rows, kind):,}")
        if verify or size <= _CHECKED_WHEN_OPENED:
            with shard.data.open("rb") as file:
                file.seek(HEADER)
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise DamagedShardError(f"{shard.data}: not the bytes that were written")
    except FileNotFoundError as error:
        raise DamagedShardError(f"{shard.data}: is gone") from error


def _from_arrow(column: pa.ChunkedArray, width: int) -> Bytes:
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width).reshape(-1, width)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty((0, width), np.uint8)
