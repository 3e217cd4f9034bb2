"""Read `rates.parquet` again, in pieces: memory does not grow with the text of a pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.outputs.run_kinds import lost, targets_of

NEEDED = ("sample_id", "source", "label", "rate")
PIECE = 8_192  # rows


class RatesFile:
    """A rates file on disk.

    Args:
        path: Of the file.
        needed: Columns that it must have.

    Raises:
        DataError: It is missing, damaged, or lacks a column.
    """

    def __init__(self, path: Path, needed: Sequence[str] = NEEDED) -> None:
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path, buffer_size=1 << 20)
            self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)
        except FileNotFoundError:
            if (path.parent / "results.json").is_file() and not targets_of(path.parent):
                raise lost(path, path.parent) from None
            several = sorted(file.parent.name for file in path.parent.glob("*/rates.parquet"))
            hint = f"one target's folder in it: {', '.join(several)}" if several else "the folder of a finished run"
            raise DataError(f"{path}: no such file; give {hint}") from None
        except Exception as error:  # pyarrow raises many kinds on damaged files
            raise DataError(f"{path}: cannot be read as parquet ({error}); run the recipe again") from error
        if missing := [name for name in needed if name not in self.columns]:
            raise DataError(f"{path}: has no column {', '.join(missing)}; found {', '.join(self.columns)}")

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def kinds(self) -> dict[str, Any]:
        """Column → its Arrow type, in the order of the file."""
        return {field.name: field.type for field in self._file.schema_arrow}

    def plain_kind(self, column: str) -> Any:
        """Arrow type of a column, that of the texts where it has a dictionary; float32 for one that is not there."""
        import pyarrow as pa

        kind = self.kinds().get(column, pa.float32())
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def pieces(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of `PIECE` rows at most, in the order of the file.

        Raises:
            DataError: The file is damaged.
        """
        count = 0
        try:
            for group in range(self._file.num_row_groups):  # one at a time: what was read of the others is freed
                for piece in self._file.iter_batches(batch_size=PIECE, row_groups=[group], columns=list(columns)):
                    piece.validate(full=True)
                    count += len(piece)
                    yield piece
        except Exception as error:
            raise self._damaged(error) from error
        if count != len(self):
            raise self._damaged(f"{count:,} rows where {len(self):,} are announced")

    def _placed(self, column: str) -> Iterator[tuple[int, Any]]:
        """Pieces of one column with the position of their first row."""
        start = 0
        for piece in self.pieces([column]):
            yield start, piece
            start += len(piece)

    def _damaged(self, why: object) -> DataError:
        return DataError(f"{self.path}: is damaged ({why}); run the recipe again")

    def rates(self) -> npt.NDArray[np.float32]:
        """float32 [N], finite and at least 0.

        Raises:
            DataError: A rate is neither.
        """
        rates = np.empty(len(self), np.float32)
        try:
            for start, piece in self._placed("rate"):
                rates[start : start + len(piece)] = piece.column(0).to_numpy(zero_copy_only=False).astype(np.float32)
        except (ValueError, TypeError) as error:  # texts, or nested lists, where numbers are expected
            raise error if isinstance(error, DataError) else self._damaged(error) from error
        if wrong := np.count_nonzero(~(np.isfinite(rates) & (rates >= 0))):
            raise DataError(f"{self.path}: {wrong:,} rates are negative or no numbers; run the recipe again")
        return rates

    def classes(self) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        """Class of each row, int32 [N], and the names, sorted."""
        seen: dict[str, int] = {}
        codes = np.empty(len(self), np.int32)
        for start, piece in self._placed("label"):
            column = piece.column(0)
            column = column if hasattr(column, "dictionary") else column.dictionary_encode()
            if column.null_count:
                raise self._damaged("a sample has no label")
            names = column.dictionary.to_pylist()
            own = np.array([seen.setdefault(str(name), len(seen)) for name in names], np.int32)
            codes[start : start + len(piece)] = own[column.indices.to_numpy(zero_copy_only=False)]
        names = sorted(seen)
        place = np.empty(len(seen), np.int32)
        for position, name in enumerate(names):
            place[seen[name]] = position
        return place[codes], tuple(names)
