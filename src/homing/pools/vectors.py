"""Features that somebody brings along: a column of a table, or a file beside it; read by rows, never all at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.files import check_regular
from homing.pools.part import Part
from homing.pools.tables import Table

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_HELD_BYTES = 1 << 30
"""Of features in a column that are kept decoded; of more, a block at a time is."""
FILES = (".npy", ".safetensors")
"""What a file of features ends with."""
_TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_MOST_HEADER = 100_000_000  # bytes, as safetensors itself has it


class Vectors(Protocol):
    """Numbers [N, D] that rows are taken from as from an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Those of a slice or of int64 rows, [m, D]."""
        ...


def open_vectors(table: Table, features: str) -> Vectors:
    """The features of each row of a table.

    Args:
        table: Whose rows they are.
        features: A column of lists of numbers; or a file that ends with .npy or .safetensors, in the table's order.

    Raises:
        DataError: It is not there, holds something else than N rows of as many numbers, or cannot be read.
    """
    if features.lower().endswith(FILES):
        vectors: Vectors = _mapped(Path(features))
        if len(vectors) != len(table):
            raise DataError(
                f"{features}: has {len(vectors):,} rows, and {table.root} has {len(table):,}; give features of each"
                " row, in the order of the table"
            )
        return vectors
    column = VectorColumn(table, features)
    if len(column) * column.shape[1] * 4 > _HELD_BYTES:
        return column
    return np.asarray(column[:], np.float32)


class VectorColumn:
    """A column of lists, all of one length.

    Args:
        table: Of the column.
        name: Of the column.

    Raises:
        DataError: It is not there, or holds something else.
    """

    def __init__(self, table: Table, name: str) -> None:
        fields = table.parts[0].schema
        if name not in fields.names:
            lists = [field.name for field in fields if _is_list(field.type)]
            raise DataError(
                f"{table.root}: there is no column {name!r}; columns of lists: {quoted(lists) or 'none'}; name one of"
                " them, or a file of features (.npy, .safetensors)"
            )
        kind = fields.field(name).type
        for part in table.parts:
            found = part.schema.field(name).type
            if not _is_of_numbers(found):
                raise DataError(
                    f"{part.path}: the column {name!r} is of the type {found}; lists of numbers are wanted:"
                    " write the table as parquet, or the features into a file beside it (.npy, .safetensors)"
                )
        self._blocks, self._where = Blocks(table.parts, name), f"{table.root}: column {name!r}"
        first = self._blocks.values(0) if len(self._blocks) else pa.array([], _storage(kind))
        lengths = pc.list_value_length(first).drop_null()
        if not len(lengths) or not lengths[0].as_py():
            raise DataError(f"{self._where} holds no numbers; write the features of each row into it")
        self.shape = (len(table), int(lengths[0].as_py()))
        self._last: tuple[int, Array] | None = None  # the block that was decoded last

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Rows) -> npt.NDArray[np.float32]:
        """float32 [m, D]; NaN where a number is missing."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows, np.int64)
        found = np.empty((len(wanted), self.shape[1]), np.float32)
        for number, places, inside in self._blocks.of(wanted):
            if self._last is None or self._last[0] != number:
                self._last = (number, self._decoded(number))
            found[places] = self._last[1][inside]
        return found

    def _decoded(self, number: int) -> Array:
        values = self._blocks.values(number)
        lengths = pc.fill_null(pc.list_value_length(values), -1).to_numpy(zero_copy_only=False)
        if (odd := np.flatnonzero(lengths != self.shape[1])).size:
            row, length = self._blocks.starts[number] + odd[0], lengths[odd[0]]
            has = "no features" if length < 0 else f"{length} numbers"
            raise DataError(
                f"{self._where}: row {row} has {has}, and others have {self.shape[1]}; take the features of all rows"
                " from one model, or leave the row out"
            )
        numbers = pc.cast(values.flatten(), pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(numbers).reshape(-1, self.shape[1])


class Blocks:
    """A column in the blocks that it is read in, over all files of a table.

    Args:
        parts: Files of the table.
        name: Of the column.
    """

    def __init__(self, parts: tuple[Part, ...], name: str) -> None:
        self._name = name
        self._places = [(part, number) for part in parts for number in range(len(part.starts(name)) - 1)]
        lengths = [np.diff(part.starts(name)) for part in parts]
        self.starts = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def of(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """Block by block: its number, places in `rows` that it holds, and where these stand in it."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield number, places, rows[places] - self.starts[number]

    def values(self, number: int) -> Any:
        """The values of a block, as one Arrow array.

        Raises:
            DataError: The file cannot be read.
        """
        part, inside = self._places[number]
        try:
            column = part.block(self._name, inside).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{part.path}: column {self._name!r} cannot be read: {reason}") from error
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        return column.storage if isinstance(column, pa.ExtensionArray) else column


def _is_of_numbers(kind: pa.DataType) -> bool:
    kind = _storage(kind)
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:
        return False
    return _is_list(kind) and bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    kind = _storage(kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _mapped(path: Path) -> Array:
    """A file of numbers [N, D], mapped into memory."""
    try:
        check_regular(path)
        found: Array = (
            np.lib.format.open_memmap(path, mode="r") if path.suffix.lower() == ".npy" else _safetensors(path)
        )
    except DataError:
        raise
    except Exception as error:  # damaged headers raise many kinds, and a deep one RecursionError or MemoryError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or "its header is damaged"
        raise DataError(f"{path}: cannot be read as features ({reason})") from error
    if found.ndim != 2 or found.dtype.kind not in "fiu" or not found.shape[1]:
        raise DataError(f"{path}: holds {found.dtype} of shape {found.shape}; numbers [rows, columns] are wanted")
    return found


def _safetensors(path: Path) -> Array:
    """The one matrix of a safetensors file (8 bytes of length, a header of JSON, the numbers)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_MOST_HEADER, path.stat().st_size - 8):
            raise ValueError(f"its header would have {length:,} bytes")
        header = json.loads(file.read(length))
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    matrices = {name: entry for name, entry in entries.items() if len(entry["shape"]) == 2}
    if len(matrices) != 1:
        held = quoted(sorted(entries)) or "none"
        raise DataError(f"{path}: holds the tensors {held}; a single one of shape [rows, columns] is wanted")
    ((name, entry),) = matrices.items()
    if entry["dtype"] not in _TYPES:
        raise DataError(
            f"{path}: {name!r} is of the type {entry['dtype']}; write it anew as one of {', '.join(_TYPES)}"
        )
    start, end = entry["data_offsets"]
    shape, kind = tuple(entry["shape"]), np.dtype(_TYPES[entry["dtype"]])
    is_shape = all(isinstance(size, int) and size >= 0 for size in shape)
    if not is_shape or start < 0 or end - start != math.prod(shape) * kind.itemsize:
        raise ValueError("its header does not fit what it holds")
    return np.memmap(path, kind, "r", 8 + length + start, shape) if math.prod(shape) else np.empty(shape, kind)
