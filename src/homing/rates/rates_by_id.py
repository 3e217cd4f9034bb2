"""Rates out of a `rates.parquet`, each for the row that has its id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.rates.table_file import by_position, check_unique, digests, digests_of, match

_COLUMNS = ["sample_id", "rate"]


def rates_by_id(path: Path, ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """The rate of each id, float32 [N]; what the file knows of other ids is left out.

    Args:
        path: With the columns `sample_id` and `rate`.
        ids: Of each row, unique.

    Raises:
        DataError: The file cannot be read, an id has no rate, or ids occur twice.
    """
    ids = by_position(ids)
    wanted = digests(ids, len(ids))
    names, rates = _read(path)
    mine, theirs = match(wanted, check_unique(digests_of(names), names))
    if len(mine) < len(ids):
        known = np.zeros(len(ids), bool)
        known[mine.numpy()] = True
        missing = np.flatnonzero(~known)
        raise DataError(
            f"{path}: {len(missing):,} of {len(ids):,} ids have no rate, the first of them {ids[missing[0]]!r}; learn"
            " the rates of this pool, or leave these rows out"
        )
    found = np.empty(len(ids), np.float32)
    found[mine.numpy()] = rates[theirs.numpy()]
    return found


class _Names:
    """A column of texts, read in pieces."""

    def __init__(self, column: object) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> str:
        return str(self._column[row])  # type: ignore[index]

    def to_arrow(self) -> object:
        return self._column


def _read(path: Path) -> tuple[Sequence[str], npt.NDArray[np.float32]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the rates.parquet in it")
    try:
        table = pq.read_table(path, columns=_COLUMNS)
        names = table["sample_id"].cast(pa.large_string())
        rates = table["rate"].to_numpy().astype(np.float32)
        if names.null_count or len(table.column_names) < len(_COLUMNS):
            raise ValueError("a sample has no id")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the rates.parquet of a run") from None
    except Exception as error:  # pyarrow raises many kinds on damaged files, and on columns that are not there
        raise DataError(
            f"{path}: cannot be read as a table with the columns {' and '.join(_COLUMNS)} ({error})"
        ) from error
    return _Names(names), rates  # type: ignore[return-value]
