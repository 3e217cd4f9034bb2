"""Writing a shard: rows as they come, and the index last."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from homing.features.shards import DIGEST, HEADER, NOT_HERE, STATE, Bytes, Kind, Shard
from homing.outputs.artefact import host, open_whole

_serial = itertools.count()


class ShardWriter:
    """A shard that is being written; as a context it is finished at the end, also where a stop ends the block early.

    Args:
        folder: Of the store.
        kind: What its rows are.
        begun: When it was, ns since 1970: what a later shard says of a file counts more.
    """

    def __init__(self, folder: Path, kind: Kind, begun: int | None = None) -> None:
        self.kind = kind
        self.shard = Shard(folder, f"{begun or time.time_ns():016x}-{host()}-{os.getpid()}-{next(_serial)}")
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
                self._file.write(bytes(HEADER))
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
            self._file.truncate(HEADER + self.rows * self.kind.row_bytes)
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
    reasons = (
        pa.array([reasons.get(place) for place in range(count)], pa.string())
        if reasons
        else pa.nulls(count, pa.string())
    )
    table = pa.table(columns | {"reason": reasons}).replace_schema_metadata({"homing": json.dumps(about)})
    with open_whole(path) as file:
        parquet.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    text = repr({"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    body = text.encode().ljust(HEADER - 11) + b"\n"  # 10 bytes go before it
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def _to_arrow(values: Bytes) -> pa.Array:
    kind = pa.binary(values.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
