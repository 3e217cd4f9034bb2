"""Predictions as a parquet table, and embeddings as `.npy` or parquet; rows go by in batches, none is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from homing.outputs.artefact import open_whole


@dataclass(frozen=True)
class Row:
    """What is said of one image.

    Attributes:
        row: Its position among all.
        predicted: Its class; or those of its set.
        probability: Of that answer.
        shares: Probability of each class; empty where the image is bad.
        reason: What is wrong with it; empty where nothing is.
    """

    row: int
    predicted: list[str]
    probability: float
    shares: list[float]
    reason: str


class PredictionTable:
    """Columns image, predicted, probability, error and `p(class)` for each class; null where an image is bad.

    Args:
        file: To write to.
        classes: Names of the model's outputs.
        are_sets: Whether an image may be of several; predicted is a list then.
    """

    def __init__(self, file: IO[Any], classes: Sequence[str], *, are_sets: bool = False) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._classes, self._are_sets = classes, are_sets
        answers = [("image", pa.string()), ("predicted", pa.list_(pa.string()) if are_sets else pa.string())]
        shares = [(f"p({name})", pa.float32()) for name in classes]
        self._schema = pa.schema([*answers, ("probability", pa.float32()), ("error", pa.string()), *shares])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, rows: Iterable[Row], names: Sequence[str]) -> None:
        """Some more rows, in their order."""
        import pyarrow as pa

        columns: list[list[Any]] = [[] for _ in self._schema]
        for one in rows:
            found: tuple[Any, Any] = (None, None)
            if one.shares:
                found = (one.predicted if self._are_sets else one.predicted[0], one.probability)
            each: Sequence[float | None] = one.shares or [None] * len(self._classes)
            for column, value in zip(columns, (_text(names[one.row]), *found, one.reason or None, *each), strict=True):
                column.append(value)
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


class Embeddings(Protocol):
    """Takes what the head sees of images, batch by batch."""

    def add(self, rows: npt.NDArray[np.int64], seen: npt.NDArray[np.float32], bad: Sequence[int]) -> None:
        """Embeddings [B, D] of the images at `rows`, and which others of the batch are bad."""
        ...

    def close(self) -> None:
        """Write the end of the file."""
        ...


@contextmanager
def embeddings_to(path: Path | None, names: Sequence[str], width: int) -> Iterator[Embeddings | None]:
    """Where embeddings go: float32 [N, D] (`.npy`), or columns image and embedding; there whole or not at all.

    Rows are those of the predictions, in their order; NaN in an array, null in a table, where an image is bad.

    Args:
        path: `.npy` or `.parquet`; None for none.
        names: Of all N images.
        width: D.
    """
    if path is None:
        yield None
        return
    kind = _Array if path.suffix == ".npy" else _Table
    with open_whole(path) as file, closing(kind(file, names, width)) as writer:
        yield writer


class _Array:
    def __init__(self, file: BinaryIO, names: Sequence[str], width: int) -> None:
        self._file, self._width = file, width
        about = {"descr": "<f4", "fortran_order": False, "shape": (len(names), width)}
        np.lib.format.write_array_header_1_0(file, about)

    def add(self, rows: npt.NDArray[np.int64], seen: npt.NDArray[np.float32], bad: Sequence[int]) -> None:
        order = np.argsort([*rows.tolist(), *bad])
        missing = np.full((len(bad), self._width), np.nan, np.float32)
        self._file.write(np.concatenate([seen, missing])[order].astype("<f4").tobytes())

    def close(self) -> None:
        """The header came first."""


class _Table:
    def __init__(self, file: BinaryIO, names: Sequence[str], width: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._names = names
        self._schema = pa.schema([("image", pa.string()), ("embedding", pa.list_(pa.float32(), width))])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, rows: npt.NDArray[np.int64], seen: npt.NDArray[np.float32], bad: Sequence[int]) -> None:
        import pyarrow as pa

        found: dict[int, Any] = dict.fromkeys(bad) | dict(zip(rows.tolist(), seen, strict=True))
        order = sorted(found)
        columns = [[_text(self._names[row]) for row in order], [found[row] for row in order]]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _text(name: str) -> str:
    """A file's name as text, also where its bytes are none."""
    return name.encode(errors="backslashreplace").decode()
