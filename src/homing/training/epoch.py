"""One epoch of a plan: the global batches it is cut into, and what this process takes of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from homing.models.inputs import Visit
from homing.pools.order import Rows, epoch_order, resampled_counts, share_of_rank

Masses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """What one process does of one global batch.

    Attributes:
        parts: One visit for each accumulation part; at least one. A process that has no row of the global batch visits
            its first row with mass 0, so that all processes take the same number of collective steps.
        everyone: All rows of the global batch, over all processes and parts, int64.
        idle: Whether this process's rows are only there to keep step with the others.
    """

    parts: tuple[Visit, ...]
    everyone: Rows
    idle: bool

    @property
    def rows(self) -> Rows:
        """All rows of this process, int64."""
        return np.concatenate([part.rows for part in self.parts])


@dataclass(frozen=True)
class Epoch:
    """The order of one epoch.

    Attributes:
        number: From 0.
        rows: int64 [L], in training order.
        copies: int64 [L], how often the row came before in this epoch.
        batch_size: Global.
    """

    number: int
    rows: Rows
    copies: Rows
    batch_size: int

    @property
    def num_batches(self) -> int:
        """Global batches, the last one shorter."""
        return -(-len(self.rows) // self.batch_size)

    def batches(self, start: int, stop: int, *, accumulate: int, rank: int, num_ranks: int) -> Iterator[Batch]:
        """Global batches start .. stop of this epoch, as one process sees them."""
        for position in range(start, min(stop, self.num_batches)):
            whole = np.arange(position * self.batch_size, min((position + 1) * self.batch_size, len(self.rows)))
            mine = share_of_rank(whole, rank, num_ranks)
            idle = not len(mine)
            mine = whole[:1] if idle else mine
            # every process must take the same number of parts: as many as the process with the fewest rows can fill
            num_parts = max(1, min(accumulate, len(whole) // num_ranks))
            parts = tuple(
                Visit(self.number, self.rows[part], self.copies[part]) for part in np.array_split(mine, num_parts)
            )
            yield Batch(parts, self.rows[whole], idle)


def expected_visits(rates: npt.NDArray[np.float32], num_target: int, target_weight: float, apply: str) -> Masses:
    """Times an epoch takes each source and target row on average; float64 [N + num_target].

    With `weight` every source sample that counts is taken once; with `sample` as often as its rate says.
    """
    source = rates.astype(np.float64) if apply == "sample" else (rates > 0).astype(np.float64)
    return np.concatenate([source, np.full(num_target, float(target_weight))])


def open_epoch(counts: Rows, number: int, *, batch_size: int, seed: int) -> Epoch:
    """Shuffle the visits of one epoch."""
    rows, copies = epoch_order(counts, seed=seed, epoch=number)
    return Epoch(number, rows, copies, batch_size)


def draw_counts(expected: Masses, number: int, *, seed: int) -> Rows:
    """Whole visits out of expected ones; int64 [N + n], at least one visit in all.

    A plan whose epoch would be shorter than one visit (a target weight below 1 / n alone) takes its likeliest row.
    """
    counts = resampled_counts(expected, seed=seed, epoch=number)
    if not counts.any():
        counts[int(np.argmax(expected))] = 1
    return counts
