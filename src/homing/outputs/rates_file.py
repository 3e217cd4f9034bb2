"""`rates.parquet`: a rate for every sample, by id. The one writer, a row group at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homing.outputs.artefact import open_whole
from homing.pools.pool import Pool

if TYPE_CHECKING:
    from torch import Tensor

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
    """

    def __init__(self, file: BinaryIO, groups: Sequence[str] = (), *, has_suggested: bool = True) -> None:
        texts = [("sample_id", pa.string()), ("source", _CATEGORY), ("label", _CATEGORY)]
        numbers = [(name, pa.float32()) for name in ("rate", *DESCRIPTORS)]
        fields = [*texts, *numbers, ("visits", pa.int32())]
        fields += [("suggested_label", pa.string())] if has_suggested else []
        known = {name for name, _ in fields}
        self.groups = tuple(name for name in groups if name not in known)
        self.schema = pa.schema([*fields, *((name, _CATEGORY) for name in self.groups)])
        self._file = pq.ParquetWriter(file, self.schema, compression="zstd")
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
        self._flush(1)
        self._file.close()

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


def write_rates(
    path: Path,
    source: Pool,
    rates: Tensor,
    *,
    descriptors: Mapping[str, Tensor],
    visits: Tensor,
    groups: Sequence[str] = (),
    suggested: Tensor | None = None,
    classes: Sequence[str] = (),
    dropped: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write one row for each source sample; beyond the arguments, memory holds a row group.

    Args:
        path: Of the file.
        source: The pool.
        rates: float32 [N].
        descriptors: Name → float32 [N]; those that this run does not know are filled with NaN.
        visits: int [N], gradient evaluations spent on each sample.
        groups: Columns of the pool to take along.
        suggested: int64 [N], position in `classes` of a class that fits better than the label, or -1.
        classes: Names that `suggested` counts in.
        dropped: (id, source, label) of samples whose image could not be read; they get rate 0.
    """
    numbers = {"rate": rates, "visits": visits, **descriptors}
    names = pa.array(classes, pa.string())
    with open_whole(path) as file:
        writer = RatesWriter(file, groups, has_suggested=suggested is not None)
        for start in range(0, len(source), ROW_GROUP):
            rows = slice(start, min(len(source), start + ROW_GROUP))
            columns: dict[str, Any] = {name: values[rows].cpu().numpy() for name, values in numbers.items()}
            texts = {"sample_id": source.ids, "source": source.sources, "label": source.labels}
            texts |= {name: source.columns[name] for name in writer.groups}
            columns |= {name: _slice_of(values, rows) for name, values in texts.items()}
            if suggested is not None:
                codes = suggested[rows].cpu().numpy()
                columns["suggested_label"] = names.take(pa.array(codes, mask=codes < 0))
            writer.add(columns)
        if dropped:
            ids, sources, labels = zip(*dropped, strict=True)
            nothing = np.zeros(len(ids), np.float32)
            writer.add({"sample_id": ids, "source": sources, "label": labels, "rate": nothing})
        writer.close()


def _slice_of(texts: Any, rows: slice) -> Any:
    """Some rows of a sequence of texts, as Arrow where it is held as such."""
    part = texts[rows]
    return part.to_arrow() if hasattr(part, "to_arrow") else part


def _float32(values: Any) -> Any:
    return np.asarray(values).astype(np.float32)


def _texts(values: Any, kind: Any) -> Any:
    """Texts as one Arrow array of a type: plain, or with a dictionary."""
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(list(values), pa.string())
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
        values = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    values = values.cast(pa.string())
    return values.dictionary_encode() if pa.types.is_dictionary(kind) else values
