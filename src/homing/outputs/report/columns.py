"""`rates.parquet` as the report needs it: numbers and categories of all rows, and the ids of the few that are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.outputs.rates_reader import RatesFile

Floats: TypeAlias = npt.NDArray[np.floating]
Codes: TypeAlias = npt.NDArray[np.integer]

DESCRIPTORS = ("target_likeness", "label_consistency", "target_alignment")
NEEDED = ("sample_id", "label", "rate")
_NOT_GROUPS = {"sample_id", "source", "label", "rate", "visits", "suggested_label", *DESCRIPTORS}
_NONE = "(none)"


@dataclass(frozen=True)
class Category:
    """One text column as codes into its sorted distinct values.

    Attributes:
        names: Distinct values, sorted; a missing value is "(none)".
        codes: Index into `names` per row, shape (rows,).
    """

    names: tuple[str, ...]
    codes: Codes


@dataclass(frozen=True)
class RateColumns:
    """`rates.parquet` as columns; rows whose rate is not a finite number are left out and counted.

    Attributes:
        file: The file, which is asked again for the ids of the few rows that are shown.
        kept: Place in the file of each row, shape (rows,).
        rate: Rates, shape (rows,), finite.
        label: The class of each row.
        source: The pool that each row came from.
        suggested: The class that the model would give, or None when the run did not record it.
        descriptors: Name to values, shape (rows,), NaN where unknown; columns without any value are left out.
        groups: The user's own group columns.
        num_dropped: Rows left out because their rate was not finite.
    """

    file: RatesFile
    kept: Codes
    rate: Floats
    label: Category
    source: Category
    suggested: Category | None
    descriptors: dict[str, Floats]
    groups: dict[str, Category]
    num_dropped: int

    def ids(self, rows: Codes) -> list[str]:
        """Return the sample ids of the given rows, in their order."""
        places = self.kept[rows]
        found: dict[int, str] = {}
        start = 0
        wanted = np.sort(places)
        for piece in self.file.pieces(["sample_id"]):
            inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(piece))]
            if len(inside):
                names = piece.column(0).take(_indices(inside - start)).to_pylist()
                found |= dict(zip(inside.tolist(), map(str, names), strict=True))
            start += len(piece)
        return [found[place] for place in places.tolist()]

    def rows_of(self, sample_ids: Any) -> Codes:
        """Return the row of each of some sample ids, -1 where it has none."""
        import pyarrow.compute as pc

        places, start = np.full(len(sample_ids), -1, np.int64), 0
        for piece in self.file.pieces(["sample_id"]):
            found = pc.index_in(piece.column(0), value_set=sample_ids)
            inside = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
            places[found.drop_null().to_numpy()] = start + inside
            start += len(piece)
        rows = np.searchsorted(self.kept, places)
        is_kept = (places >= 0) & (self.kept[np.minimum(rows, len(self.kept) - 1)] == places)
        return np.where(is_kept, rows, -1)


def read_columns(path: Path, dropped: Sequence[str]) -> RateColumns:
    """Read a rates file piece by piece; texts are held as codes.

    Args:
        path: Of the file.
        dropped: Ids of samples to leave out, whose image could not be read.

    Raises:
        DataError: It is missing, damaged, lacks a column or has no finite rate.
    """
    import pyarrow as pa

    file = RatesFile(path, NEEDED)
    gone, kinds = pa.array(dropped, pa.string()), file.kinds()
    columns = {name: _column(name, kind, len(file)) for name, kind in kinds.items() if _is_shown(name, kind)}
    kept: Codes = np.empty(len(file), np.int32 if len(file) < 2**31 else np.int64)
    count = start = 0
    for piece in file.pieces(["sample_id", *columns]):
        good = _usable(piece, gone)
        kept[count : count + len(good)] = start + good
        for name, column in columns.items():
            column.add(piece.column(name), good)
        count, start = count + len(good), start + len(piece)
    if count == 0:
        raise DataError(f"{path}: none of its {len(file)} rows has a finite rate, so there is nothing to show.")
    return _as_columns(file, kept[:count], {name: column.taken() for name, column in columns.items()})


def _as_columns(file: RatesFile, kept: Codes, found: dict[str, Any]) -> RateColumns:
    no_source = Category(("source",), np.zeros(len(kept), np.int32))
    return RateColumns(
        file=file,
        kept=kept,
        rate=found["rate"],
        label=found["label"],
        source=found.get("source", no_source),
        suggested=found.get("suggested_label"),
        descriptors={name: found[name] for name in DESCRIPTORS if name in found and np.isfinite(found[name]).any()},
        groups={name: values for name, values in found.items() if name not in _NOT_GROUPS},
        num_dropped=len(file) - len(kept),
    )


def _is_shown(name: str, kind: Any) -> bool:
    import pyarrow as pa

    if name in _NOT_GROUPS:
        return name not in ("sample_id", "visits")
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _column(name: str, kind: Any, num_rows: int) -> _Numbers | _Texts:
    if name == "rate":
        return _Numbers(num_rows, np.float64)
    return _Numbers(num_rows, np.float32) if name in DESCRIPTORS else _Texts(num_rows)


def _usable(piece: Any, gone: Any) -> Codes:
    """Which rows of a piece have a rate and a picture."""
    import pyarrow as pa
    import pyarrow.compute as pc

    finite = pc.fill_null(pc.is_finite(piece.column("rate").cast(pa.float64())), False)
    if len(gone):
        finite = pc.and_(finite, pc.invert(pc.is_in(piece.column("sample_id").cast(pa.string()), value_set=gone)))
    return np.flatnonzero(finite.to_numpy(zero_copy_only=False))


class _Numbers:
    """A column of numbers, filled piece by piece; NaN where there is none."""

    def __init__(self, num_rows: int, kind: type[np.floating]) -> None:
        self._values = np.empty(num_rows, kind)
        self._count = 0

    def add(self, column: Any, rows: Codes) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        values = pc.fill_null(column.cast(pa.float64()), math.nan).to_numpy(zero_copy_only=False)
        self._values[self._count : self._count + len(rows)] = values[rows]
        self._count += len(rows)

    def taken(self) -> Floats:
        return self._values[: self._count]


class _Texts:
    """A column of texts as codes, filled piece by piece."""

    def __init__(self, num_rows: int) -> None:
        self._codes = np.empty(num_rows, np.int32)
        self._count = 0
        self._seen: dict[str, int] = {}

    def add(self, column: Any, rows: Codes) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        texts = pc.fill_null(column.cast(pa.string()).take(_indices(rows)), _NONE).dictionary_encode()
        own = self._codes_of(str(name) for name in texts.dictionary.to_pylist())
        self._codes[self._count : self._count + len(rows)] = own[texts.indices.to_numpy()]
        self._count += len(rows)

    def _codes_of(self, names: Iterable[str]) -> npt.NDArray[np.int32]:
        return np.array([self._seen.setdefault(name, len(self._seen)) for name in names], np.int32)

    def taken(self) -> Category:
        names = sorted(self._seen)
        place = np.empty(len(names), np.int32)
        place[[self._seen[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        codes = self._codes[: self._count]
        return Category(tuple(names), place[codes] if len(names) else codes)


def _indices(rows: Codes) -> Any:
    import pyarrow as pa

    return pa.array(rows.astype(np.int64))
