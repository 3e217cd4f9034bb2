"""What a table is made of, wherever it lies: columns as a whole, and images a block at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from homing.pools.object_store import RemoteFile
from homing.pools.remote_text import RemoteText


class Part(Protocol):
    """One file of a table.

    Attributes:
        schema: Its columns.
        num_rows: Its rows.
    """

    schema: pa.Schema
    num_rows: int

    @property
    def path(self) -> Path | RemoteFile | RemoteText:
        """Where it lies."""
        ...

    def state(self) -> bytes | None:
        """16 bytes that change whenever the file may have; None where it is gone."""
        ...

    def row(self, name: str, number: int) -> pa.Scalar | None:
        """One row of a column, from any thread, where it costs less than its block; else None."""
        ...

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column, or one field of it."""
        ...

    def starts(self, name: str) -> npt.NDArray[np.int64]:
        """First row of each block in which a column is read, and the number of rows behind them; int64 [blocks + 1]."""
        ...

    def block(self, name: str, number: int) -> pa.ChunkedArray:
        """One block of a column; in order each costs its own bytes, out of order those before it in its row group."""
        ...

    def num_nulls(self, name: str, field: str) -> int | None:
        """How many values of a field of a column are null; None where the file does not say."""
        ...

    def check(self) -> None:
        """Whether the file is still the one that was listed, of which blocks may be views.

        Raises:
            OSError: It was replaced, changed or cut off since.
        """
        ...

    def close(self) -> None:
        """Let go of the open file; the next block opens it again."""
        ...
