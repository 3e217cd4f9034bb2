"""Features of many rows that need not be in memory: whoever wants some of them asks for those rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from homing.errors import DataError

BLOCK_ROWS = 8192


class FeatureBlocks(Protocol):
    """Features of N rows, D columns each."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def rows(self, rows: slice | Tensor) -> Tensor:
        """float32 `[m, D]` on the CPU, of a slice of step 1 or of int64 rows in any order."""
        ...


@dataclass(frozen=True)
class ArrayFeatures:
    """Features in an array of NumPy, a file that is mapped into memory, or whatever rows are taken from as from these.

    Attributes:
        features: `[N, D]`, any type of numbers.
    """

    features: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.features.shape[0], self.features.shape[1]

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, rows: slice | Tensor) -> Tensor:
        """float32 `[m, D]`."""
        which = rows if isinstance(rows, slice) else rows.numpy()
        return in_float32(self.features[which])


class HeldFeatures(ArrayFeatures):
    """Features in a tensor: `[N, D]`."""

    features: Tensor

    def rows(self, rows: slice | Tensor) -> Tensor:
        """float32 `[m, D]`; of a slice no copy where they are float32 already."""
        return self.features[rows].float()


@dataclass(frozen=True)
class MappedFeatures:
    """Features that each block is computed from when it is asked for, such as principal components.

    Attributes:
        base: Features of N rows.
        apply: `[m, D]` to `[m, width]`, row by row.
        width: Columns that come out.
    """

    base: FeatureBlocks
    apply: Callable[[Tensor], Tensor]
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(N, width)."""
        return len(self.base), self.width

    def __len__(self) -> int:
        return len(self.base)

    def rows(self, rows: slice | Tensor) -> Tensor:
        """float32 `[m, width]`; what they are computed from is held a block at a time."""
        which = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        if len(which) <= BLOCK_ROWS:
            return self.apply(self.base.rows(rows))
        return torch.cat([self.apply(self.base.rows(part)) for part in torch.split(which, BLOCK_ROWS)])


def as_blocks(features: Tensor | FeatureBlocks) -> FeatureBlocks:
    """A tensor as blocks; blocks as they are."""
    return HeldFeatures(features) if isinstance(features, Tensor) else features


def slices(num_rows: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """All rows, in runs of at most `size`."""
    for first in range(0, num_rows, size):
        yield slice(first, min(first + size, num_rows))


def in_float32(features: Any) -> Tensor:
    """An array as a float32 tensor of its own; what is beyond float32 is infinite there, and left to `check_finite`."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(features, np.float32))


def check_finite(features: Tensor, role: str, first_row: int = 0, rows: Tensor | None = None) -> None:
    """Refuse features that hold NaN or infinities.

    Args:
        features: `[m, D]`.
        role: Of the pool, for the message.
        first_row: Row of the pool that the first of them is.
        rows: `[m]` rows of the pool that they are, where they do not follow one another.

    Raises:
        DataError: Some are not finite.
    """
    # One number for the block: a sum is finite only where all of its terms are, and costs no mask.
    if torch.isfinite(features.sum(dtype=torch.float64)):
        return
    broken = (~torch.isfinite(features).all(dim=1)).nonzero().flatten()
    if len(broken):
        row = first_row + int(broken[0]) if rows is None else int(rows[broken[0]])
        what = f"features of {len(broken):,} {role} row{'s' * (len(broken) > 1)} are not finite (first: row {row})"
        raise DataError(
            f"{what}: look at those samples, or compute their features in fp32 (which holds numbers up to 3.4e38)."
        )
