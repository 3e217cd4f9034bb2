"""The rows of `rates.parquet`: a rate for every sample, by id. The one writer, a row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homing.errors import DataError

ROW_GROUP = 65_536
"""Rows in a group: readers that take one after the other need no more memory for a larger pool."""
DESCRIPTORS = ("target_likeness", "label_consistency", "target_alignment")
_CATEGORY = pa.dictionary(pa.int32(), pa.string())


class RatesWriter:
    """Rows of a rates file, held until there is a row group of them.

    Args:
        file: To write to.
        groups: Further columns of texts.
        has_suggested: Whether there is a column `suggested_label`.
        open_table: (file, schema) → what writes tables to it; None: parquet.
    """

    def __init__(
        self,
        file: BinaryIO,
        groups: Sequence[str] = (),
        *,
        has_suggested: bool = True,
        open_table: Callable[[BinaryIO, Any], Any] | None = None,
    ) -> None:
        texts = [("sample_id", pa.string()), ("source", _CATEGORY), ("label", _CATEGORY)]
        numbers = [(name, pa.float32()) for name in ("rate", *DESCRIPTORS)]
        fields = [*texts, *numbers, ("visits", pa.int32())]
        fields += [("suggested_label", pa.string())] if has_suggested else []
        known = {name for name, _ in fields}
        self.groups = tuple(name for name in groups if name not in known)
        self.schema = pa.schema([*fields, *((name, _CATEGORY) for name in self.groups)])
        self._file = (open_table or _parquet)(file, self.schema)
        self._held: list[Any] = []
        self._count = 0

    def add(self, columns: Mapping[str, Any]) -> None:
        """Some more rows.

        Args:
            columns: Name → texts (Arrow, or anything that holds texts and None) or numbers (NumPy, one for each row);
                descriptors that are missing are NaN, visits 0, other columns null.
        """
        count = len(columns["sample_id"])
        self._held.append(pa.table([self._column(field, columns, count) for field in self.schema], schema=self.schema))
        self._count += count
        if self._count >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def close(self) -> None:
        """Write what is held, and the end of the file."""
        try:
            self._flush(1)
        finally:
            self._file.close()  # else it would be tried once more when nobody listens, into a file that is closed

    def _flush(self, least: int) -> None:
        """Write row groups while at least so many rows are held."""
        held = pa.concat_tables(self._held).unify_dictionaries() if self._held else self.schema.empty_table()
        start = 0
        while len(held) - start >= least:
            self._file.write_table(held.slice(start, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
            start = min(len(held), start + ROW_GROUP)
        self._held, self._count = [held.slice(start)] if start < len(held) else [], len(held) - start

    def _column(self, field: Any, columns: Mapping[str, Any], count: int) -> Any:
        values = columns.get(field.name)
        if pa.types.is_floating(field.type):
            return pa.array(np.full(count, np.nan, np.float32) if values is None else _float32(values))
        if pa.types.is_integer(field.type):
            return pa.array(np.zeros(count, np.int32) if values is None else np.asarray(values).astype(np.int32))
        if values is None:
            return pa.nulls(count, field.type)
        return _texts(values, field.type)


def _parquet(file: BinaryIO, schema: Any) -> Any:
    return pq.ParquetWriter(file, schema, compression="zstd")


def _float32(values: Any) -> Any:
    return np.asarray(values).astype(np.float32)


def _encoded(values: list[str | None]) -> Any:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text {error.object!r} is not Unicode (the name of a file that is not UTF-8?), which a rates file"
            " cannot hold; give it another name"
        ) from error


def _texts(values: Any, kind: Any) -> Any:
    """Texts as one Arrow array of a type: plain, or with a dictionary."""
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = _encoded(list(values))
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
        values = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    values = values.cast(pa.string())
    return values.dictionary_encode() if pa.types.is_dictionary(kind) else values
