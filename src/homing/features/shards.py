"""One shard of a store: rows of one shape in a `.npy` file, and an index in parquet, which is written last.

A shard without an index is not there: the index is the mark that all its rows are on disk. Nothing is ever appended to
a shard that has one. Names are unique over hosts and processes, so writers need not know of each other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from homing.outputs.artefact import host, open_whole

Bytes = npt.NDArray[np.uint8]
STATE, DIGEST = 16, 32
"""Bytes of a file's state and of a sha256."""
NOT_HERE = -1
"""Position of a row whose values lie in no data file: a bad image, or an alias of an image that is known already."""
_HEADER = 256  # bytes before the rows: a .npy header of fixed size, so that it can be written when they are counted
_CHECKED_WHEN_OPENED = 32 << 20  # bytes: smaller data files are always compared with their digest
_NAME = re.compile(r"^[0-9a-f]{16}-(?P<host>[\w.]+)-(?P<pid>\d+)-\d+$")
_serial = itertools.count()


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
        return _HEADER + position * kind.row_bytes

    @property
    def owner(self) -> tuple[str, int] | None:
        """Host and process that wrote it; None where the name is none of ours."""
        found = _NAME.match(self.name)
        return None if found is None else (found["host"], int(found["pid"]))

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


class ShardWriter:
    """A shard that is being written; as a context it is finished at the end, also where a stop ends the block early.

    Args:
        folder: Of the store.
        kind: What its rows are.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.kind = kind
        self.shard = Shard(folder, f"{time.time_ns():016x}-{host()}-{os.getpid()}-{next(_serial)}")
        self.started = time.monotonic()
        self.rows = 0
        # grown in place: many small arrays among the model's large ones would break the heap into pieces
        self._states, self._digests, self._positions = bytearray(), bytearray(), bytearray()
        self._reasons: dict[int, str] = {}
        self._entries = 0
        self._sum = hashlib.sha256()
        self._stack = ExitStack()
        self._file: BinaryIO | None = None

    def __len__(self) -> int:
        return self._entries

    def add(
        self,
        states: Bytes,
        digests: Bytes,
        values: npt.NDArray[Any],
        here: npt.NDArray[np.bool_],
        why: Mapping[int, str],
    ) -> npt.NDArray[np.int32]:
        """Write some rows.

        Args:
            states: uint8 [m, 16].
            digests: uint8 [m, 32].
            values: [here.sum(), *shape], of the store's dtype.
            here: bool [m]: which of the rows have values; the others are bad or aliases.
            why: Why a row is bad, by place within these rows.

        Returns:
            Positions in the data file, int32 [m].
        """
        count = int(here.sum())
        positions = np.full(len(here), NOT_HERE, np.int32)
        positions[here] = np.arange(self.rows, self.rows + count, dtype=np.int32)
        if count and self.kind.row_bytes:
            if self._file is None:
                self._file = self._stack.enter_context(open_whole(self.shard.data))
                self._file.write(bytes(_HEADER))
            data = np.ascontiguousarray(values, dtype=self.kind.dtype).reshape(-1).view(np.uint8).data
            self._file.write(data)
            self._sum.update(data)
        self._states += states.tobytes()
        self._digests += digests.tobytes()
        self._positions += positions.tobytes()
        self._reasons |= {self._entries + place: reason for place, reason in why.items()}
        self._entries += len(here)
        self.rows += count
        return positions

    def seal(self) -> Shard:
        """Flush the rows, then write the index; a shard with no entries leaves nothing behind."""
        if self._file is not None:
            self._file.truncate(_HEADER + self.rows * self.kind.row_bytes)
            self._file.seek(0)
            self._file.write(_npy_header((self.rows, *self.kind.shape), self.kind.dtype))
            self._file = None
        self._stack.close()
        if self._entries:
            about: dict[str, Any] = {"key": self.kind.key, "shape": self.kind.shape, "dtype": self.kind.dtype}
            about |= {"rows": self.rows, "sha256": self._sum.hexdigest()}
            _write_index(self.shard.index, about, self._columns(), self._reasons)
        return self.shard

    def _columns(self) -> dict[str, pa.Array]:
        states, digests = (np.frombuffer(column, np.uint8) for column in (self._states, self._digests))
        positions = np.frombuffer(self._positions, np.int32)
        return {
            "state": _to_arrow(states.reshape(-1, STATE)),
            "sha256": _to_arrow(digests.reshape(-1, DIGEST)),
            "position": pa.array(positions),
        }

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError | MemoryError):  # rows may be half written
            self._stack.__exit__(kind, error, trace)
        else:
            self.seal()


def _write_index(path: Path, about: dict[str, Any], columns: dict[str, pa.Array], reasons: dict[int, str]) -> None:
    count = len(columns["position"])
    told = (
        pa.array([reasons.get(place) for place in range(count)], pa.string())
        if reasons
        else pa.nulls(count, pa.string())
    )
    table = pa.table(columns | {"reason": told}).replace_schema_metadata({"homing": json.dumps(about)})
    with open_whole(path) as file:
        parquet.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)


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
                file.seek(_HEADER)
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise DamagedShardError(f"{shard.data}: not the bytes that were written")
    except FileNotFoundError as error:
        raise DamagedShardError(f"{shard.data}: is gone") from error


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    text = repr({"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    body = text.encode().ljust(_HEADER - 11) + b"\n"  # 10 bytes go before it
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def _to_arrow(values: Bytes) -> pa.Array:
    kind = pa.binary(values.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _from_arrow(column: pa.ChunkedArray, width: int) -> Bytes:
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width).reshape(-1, width)
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty((0, width), np.uint8)
