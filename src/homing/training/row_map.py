"""Which row of a checkpoint each row of a run was, by id: a pool may be reordered, grown or shrunk between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from homing.rates.table_file import check_unique, digests_of, match


def row_keys(ids: Sequence[str], num_source: int, num_unlabelled: int = 0) -> Tensor:
    """A 128-bit digest of each row's role and id, int64 [rows, 2].

    Args:
        ids: Of all rows; columns of Arrow (`to_arrow()`) are read in pieces.
        num_source: Rows of the source, the first ones.
        num_unlabelled: Rows of the unlabelled, behind them; those of the target come last.
    """
    target = num_source + num_unlabelled
    parts = (
        keys_of(ids, "source", stop=num_source),
        keys_of(ids, "unlabelled", start=num_source, stop=target),
        keys_of(ids, "target", start=target),
    )
    return torch.from_numpy(check_unique(np.concatenate(parts), ids))


def keys_of(
    ids: Sequence[str], role: str, start: int = 0, stop: int | None = None
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A digest of the role and each id of a stretch, int64 [stop - start, 2]."""
    return digests_of(ids, start, stop, prefix=f"{role} ")


@dataclass(frozen=True)
class RowMap:
    """Rows that both a checkpoint and a run have.

    Attributes:
        mine: Positions in the run, int64 [k]; empty where all are the same.
        theirs: The same rows' positions in the checkpoint, int64 [k]; empty where all are the same.
        same: Whether both have the very same rows in the same order, with the same labels and rates.
    """

    mine: Tensor
    theirs: Tensor
    same: bool

    @classmethod
    def between(cls, mine: Tensor, theirs: Tensor, *, as_before: bool = True) -> RowMap:
        """The map from the `row_keys` of both; as_before: whether what is known of the rows is the same, too."""
        if as_before and torch.equal(mine, theirs):
            nothing = torch.empty(0, dtype=torch.int64)
            return cls(nothing, nothing, same=True)
        return cls(*match(mine.numpy(), theirs.numpy()), same=False)

    def moved(self, saved: Tensor, fresh: Tensor) -> Tensor:
        """What a checkpoint says of each row, at the row's place in this run.

        Args:
            saved: One value for each of the checkpoint's rows, or for the first of them (the source's).
            fresh: The same for this run, with the values of rows that the checkpoint does not know.
        """
        if self.same:
            return saved
        moved = fresh.clone()
        inside = (self.mine < len(fresh)) & (self.theirs < len(saved))
        moved[self.mine[inside]] = saved[self.theirs[inside]].to(moved.dtype)
        return moved
