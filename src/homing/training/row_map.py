"""Which row of a checkpoint each row of a run was, by id: a pool may be reordered, grown or shrunk between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from homing.rates.table_file import digests, match


def row_keys(ids: Sequence[str], num_source: int) -> Tensor:
    """A 128-bit digest of each row's role and id, int64 [rows, 2]; the source's rows come first."""
    named = [f"{'source' if row < num_source else 'target'} {sample_id}" for row, sample_id in enumerate(ids)]
    return torch.from_numpy(digests(named, len(named)))


@dataclass(frozen=True)
class RowMap:
    """Rows that both a checkpoint and a run have.

    Attributes:
        mine: Positions in the run, int64 [k].
        theirs: The same rows' positions in the checkpoint, int64 [k].
        same: Whether both have the very same rows in the same order.
    """

    mine: Tensor
    theirs: Tensor
    same: bool

    @classmethod
    def between(cls, mine: Tensor, theirs: Tensor) -> RowMap:
        """The map from the `row_keys` of both."""
        return cls(*match(mine.numpy(), theirs.numpy()), same=torch.equal(mine, theirs))

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
