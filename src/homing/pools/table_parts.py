"""Files that a table is made of, read where they lie: parquet by row group, Arrow streams by memory map."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.files import check_regular, file_state, unreadable
from homing.pools.object_store import RemoteFile
from homing.pools.part import Part
from homing.pools.remote_text import RemoteText

BLOCK_BYTES = 32_000_000
"""Of one column that are held at a time, about: a larger row group is read in several blocks."""

_BUFFER_BYTES = 1 << 20
"""Of a file with larger row groups. Others are read a column at a time: a page that lies about its size costs what is
there, where a buffer would first grow to what it says, 2 GB at most."""

_AT_ONCE = 8  # parts of a column that are read together from object storage
_AHEAD = 1 << 16
"""Of a file in object storage: labels of a row group are little, and images are asked for as a whole."""


class Opened:
    """A file opened when it is needed, and looked at again then: rows of another state must not pass as these."""

    def __init__(self, path: Path) -> None:
        check_regular(path)
        self.path = path
        self._found = self._look()

    def _look(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_size, found.st_mtime_ns

    def state(self) -> bytes | None:
        """Of path, size and time of change, as they are now."""
        return file_state(self.path.absolute())

    def check(self) -> None:
        """Whether the file is the one that was listed.

        Raises:
            OSError: It was replaced or changed since.
        """
        if self._look() != self._found:
            raise unreadable(f"{self.path} was changed since its rows were listed; start again")


class ParquetPart:
    """A parquet file."""

    def __init__(self, path: Path | RemoteFile) -> None:
        self.path, self._state = path, Opened(path) if isinstance(path, Path) else path
        self.check, self.state = self._state.check, self._state.state
        self._buffer_bytes = 0
        file = self._open()
        self.schema, metadata = file.schema_arrow, file.metadata
        self.num_rows = int(metadata.num_rows)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self._rows = [int(group.num_rows) for group in groups]
        if any(not 0 <= group.total_byte_size <= BLOCK_BYTES for group in groups):
            self._buffer_bytes = _BUFFER_BYTES
        self._leaves = {metadata.schema.column(n).path: n for n in range(len(metadata.schema))}
        self._file: Any = None
        self._stream: tuple[tuple[str, int], Iterator[Any], int] | None = None
        self._blocks: dict[str, tuple[npt.NDArray[np.int64], list[tuple[int, int, int]]]] = {}
        file.close()

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column, or one field of it."""
        self._state.check()
        wanted = name if field is None else f"{name}.{field}"
        if isinstance(self.path, Path) or len(self._rows) < 2:
            found = self._read(wanted, None).column(name)
        else:  # an answer for each row group, which is waited for beside others
            groups = np.array_split(np.arange(len(self._rows)), min(_AT_ONCE, len(self._rows)))
            with ThreadPoolExecutor(_AT_ONCE, "column") as threads:
                parts = threads.map(lambda some: self._read(wanted, some.tolist()), groups)
                found = pa.concat_tables(parts).column(name)
        return found if field is None else pc.struct_field(found, [field])

    def _read(self, wanted: str, groups: list[int] | None) -> pa.Table:
        """A column of some row groups, or of all."""
        with self._open() as file:
            if groups is None:
                return file.read(columns=[wanted], use_threads=False)
            return file.read_row_groups(groups, columns=[wanted], use_threads=False)

    def row(self, name: str, number: int) -> pa.Scalar | None:
        """None: a row costs its row group."""
        return None

    def starts(self, name: str) -> npt.NDArray[np.int64]:
        """First row of each block of a column, and the end; int64 [blocks + 1]."""
        return self._blocks_of(name)[0]

    def block(self, name: str, number: int) -> pa.ChunkedArray:
        """One block of a column."""
        group, first, length = self._blocks_of(name)[1][number]
        file = self._held()
        if length == self._rows[group]:
            return file.read_row_group(group, columns=[name], use_threads=False).column(name)
        return self._streamed(file, name, group, first, length)

    def num_nulls(self, name: str, field: str) -> int | None:
        """Of a field of a column, from the statistics of the row groups."""
        leaf = f"{name}.{field}"
        if leaf not in self._leaves:
            return None
        file, total = self._held(), 0
        for number in range(len(self._rows)):
            statistics = self._chunk(file, number, leaf).statistics
            if statistics is None or not statistics.has_null_count:
                return None
            total += int(statistics.null_count)
        return total

    def close(self) -> None:
        """Let go of the open file; the next block opens it again."""
        if self._file is not None:
            self._stream = None
            self._file.close()
            self._file = None

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        file = self.path if isinstance(self.path, Path) else pa.PythonFile(self.path.open(_AHEAD), "r")
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=self._buffer_bytes)

    def _held(self) -> Any:
        if self._file is None:
            self._state.check()
            self._file = self._open()
        return self._file

    def _blocks_of(self, name: str) -> tuple[npt.NDArray[np.int64], list[tuple[int, int, int]]]:
        """First row of each block, and its row group, first row in there and length."""
        if name not in self._blocks:
            file, blocks = self._held(), []
            share = self._share(file, name)
            for group, rows in enumerate(self._rows):
                size = int(share * file.metadata.row_group(group).total_byte_size)
                length = max(1, -(-rows // max(1, -(-size // BLOCK_BYTES))))
                blocks += [(group, first, min(length, rows - first)) for first in range(0, rows, length)]
            starts = np.cumsum([0, *(length for _, _, length in blocks)], dtype=np.int64)
            self._blocks[name] = (starts, blocks)
        return self._blocks[name]

    def _share(self, file: Any, name: str) -> float:
        """What part of a row group's bytes a column is, by the first one."""
        leaves = [leaf for leaf in self._leaves if leaf == name or leaf.startswith(f"{name}.")]
        if not self._rows or not self._rows[0]:
            return 1.0
        size = sum(int(self._chunk(file, 0, leaf).total_uncompressed_size) for leaf in leaves)
        return min(1.0, size / max(1, int(file.metadata.row_group(0).total_byte_size)))

    def _chunk(self, file: Any, group: int, leaf: str) -> Any:
        """What the footer says of a column in a row group.

        A row is read before, which fails with an error where the footer is damaged; pyarrow would end the process.
        """
        if self._rows[group]:
            next(file.iter_batches(batch_size=1, row_groups=[group], columns=[leaf], use_threads=False))
        return file.metadata.row_group(group).column(self._leaves[leaf])

    def _streamed(self, file: Any, name: str, group: int, first: int, length: int) -> pa.ChunkedArray:
        """A block of a row group that is too large to be held: the rows before it go by."""
        key = (name, group)
        if self._stream is None or self._stream[0] != key or self._stream[2] > first:
            batches = file.iter_batches(batch_size=length, row_groups=[group], columns=[name], use_threads=False)
            self._stream = (key, batches, 0)
        _, batches, position = self._stream
        wanted: list[pa.Array] = []
        while position < first + length:
            batch = next(batches)
            array = batch.column(batch.schema.get_field_index(name))
            if position + len(array) > first:
                wanted.append(array.slice(max(0, first - position)))
            position += len(array)
        self._stream = (key, batches, position)
        if position > first + length:  # batches that do not meet the block's end: the next block begins anew
            self._stream = None
        return pa.chunked_array(wanted).slice(0, length)


class ArrowPart:
    """A file of a saved dataset: an Arrow stream, memory-mapped, so that a block is a view of it.

    A view of what is there no more ends the process (SIGBUS): whoever holds a block checks before each look into it,
    and columns, which are held for as long as a pool, are copies.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._state = path, Opened(path)
        self.check, self.state = self._state.check, self._state.state
        self._table: pa.Table | None = None
        table = self._held()
        self.schema, self.num_rows = table.schema, int(table.num_rows)

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column, or one field of it."""
        self._state.check()
        found = _sound(self._map().column(name))  # a map of its own: columns are asked for beside blocks
        return _copied(found if field is None else pc.struct_field(found, [field]))

    def row(self, name: str, number: int) -> pa.Scalar | None:
        """None: a block is a view."""
        return None

    def starts(self, name: str) -> npt.NDArray[np.int64]:
        """First row of each record batch, and the end; int64 [batches + 1]."""
        lengths = [len(chunk) for chunk in self._held().column(name).chunks]
        return np.cumsum([0, *lengths], dtype=np.int64)

    def block(self, name: str, number: int) -> pa.ChunkedArray:
        """One record batch of a column."""
        self._state.check()
        return _sound(pa.chunked_array([self._held().column(name).chunk(number)]))

    def num_nulls(self, name: str, field: str) -> int | None:
        """Of a field of a column."""
        return int(self.column(name, field).null_count)

    def close(self) -> None:
        """Let go of the map; the next block opens it again."""
        self._table = None

    def _held(self) -> pa.Table:
        if self._table is None:
            self._state.check()
            self._table = self._map()
        return self._table

    def _map(self) -> pa.Table:
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as stream:
            return stream.read_all()


def _sound(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A mapped column without the wrapping of its type, looked through: offsets of a damaged file lead anywhere."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    column.validate(full=True)
    return column


def _copied(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in memory of its own."""

    def copy(array: pa.Array) -> pa.Array:
        if pa.types.is_dictionary(array.type):
            return pa.DictionaryArray.from_arrays(copy(array.indices), copy(array.dictionary))
        return pa.concat_arrays([array, array.slice(0, 0)])  # Arrow copies what it joins

    return pa.chunked_array([copy(chunk) for chunk in column.chunks], column.type)


def _check_names(field: pa.Field) -> None:
    """Fail here, and not where it is first asked for, if the name of a field or of one inside it is not UTF-8."""
    assert isinstance(field.name, str)
    for number in range(field.type.num_fields):
        _check_names(field.type.field(number))


_Place = TypeVar("_Place", Path, RemoteFile, Path | RemoteText)


def open_parts(paths: Sequence[_Place], kind: Callable[[_Place], Part], root: Path | str, what: str) -> list[Part]:
    """All files of a table.

    Raises:
        DataError: One cannot be read; names it.
    """
    parts = []
    for path in paths:
        try:
            part = kind(path)
            for field in part.schema:
                _check_names(field)
            part.close()
        except DataError:
            raise
        except Exception as error:  # pyarrow raises many kinds on damaged files
            reason = " ".join(str(error).split())
            where = root if str(root) == str(path) else f"{root}: {path.name}"
            raise DataError(f"{where}: cannot be read as {what}: {reason}") from error
        parts.append(part)
    return parts
