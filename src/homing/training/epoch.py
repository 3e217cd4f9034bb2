"""One epoch of a plan: the global batches it is cut into, and what this process takes of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from homing.errors import RecipeError
from homing.models.inputs import Visit
from homing.rates.order import Counts, EpochOrder, Rows, resampled_counts, share_of_rank

MOST_VISITS = 1_000_000_000
"""Of one epoch; its order takes 4 bytes for each."""


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

    def most_rows(self, num_ranks: int) -> int:
        """More rows of the global batch no process has."""
        return -(-len(self.everyone) // num_ranks)


@dataclass(frozen=True)
class Epoch:
    """The order of one epoch.

    Attributes:
        number: From 0.
        order: Its visits in training order.
        batch_size: Global.
    """

    number: int
    order: EpochOrder
    batch_size: int

    @property
    def num_batches(self) -> int:
        """Global batches, the last one shorter."""
        return -(-len(self.order) // self.batch_size)

    def batches(self, start: int, stop: int, *, accumulate: int, rank: int, num_ranks: int) -> Iterator[Batch]:
        """Global batches start .. stop of this epoch, as one process sees them; each is made when it is asked for."""
        for number in range(start, min(stop, self.num_batches)):
            rows, copies = self.order[number * self.batch_size : (number + 1) * self.batch_size]
            mine = share_of_rank(np.arange(len(rows)), rank, num_ranks)
            idle = not len(mine)
            mine = np.arange(1) if idle else mine
            # every process must take the same number of parts: as many as the process with the fewest rows can fill
            num_parts = max(1, min(accumulate, len(rows) // num_ranks))
            parts = tuple(Visit(self.number, rows[part], copies[part]) for part in np.array_split(mine, num_parts))
            yield Batch(parts, rows, idle)


class ExpectedVisits:
    """Times an epoch takes each source and target row on average, float64, for the rows that are asked for.

    With `weight` every source sample that counts is taken once; with `sample` as often as its rate says.

    Args:
        rates: float32 [N] of the source.
        num_target: Target rows n; they come behind.
        target_weight: Times each of them is taken.
        apply: sample or weight.

    Raises:
        RecipeError: An epoch would be too long to be drawn.
    """

    def __init__(self, rates: npt.NDArray[np.float32], num_target: int, target_weight: float, apply: str) -> None:
        self._rates, self._num_target, self._weight = rates, num_target, float(target_weight)
        self._samples = apply == "sample"
        source = float(rates.sum(dtype=np.float64)) if self._samples else float(np.count_nonzero(rates > 0))
        check_length(source, num_target, target_weight)

    def __len__(self) -> int:
        return len(self._rates) + self._num_target

    def __getitem__(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        expected = np.full(len(rows), self._weight)
        is_source = rows < len(self._rates)
        rates = self._rates[rows[is_source]]
        expected[is_source] = rates if self._samples else rates > 0
        return expected

    def likeliest(self) -> int:
        """The row that is taken most often."""
        if not len(self._rates):
            return 0
        best = int(np.argmax(self._rates))
        return best if self[np.array([best])][0] >= self._weight or not self._num_target else len(self._rates)


def check_length(num_source: float, num_target: int, target_weight: float) -> None:
    """Whether an epoch can be drawn at all, before anything of its length is.

    Args:
        num_source: Visits of source rows.
        num_target: Target rows.
        target_weight: Visits of each of them.

    Raises:
        RecipeError: It would be too long.
    """
    visits = num_source + num_target * target_weight
    if not visits <= MOST_VISITS:
        raise RecipeError(
            f"training.target_weight: an epoch would take {visits:,.0f} images ({num_source:,.0f} of the source, and"
            f" {num_target:,} of the target {target_weight:g} times each); allowed: up to {MOST_VISITS:,}. Lower"
            " training.target_weight"
        )


def open_epoch(counts: Counts, number: int, *, batch_size: int, seed: int) -> Epoch:
    """Shuffle the visits of one epoch."""
    return Epoch(number, EpochOrder(counts, seed=seed, epoch=number), batch_size)


def draw_counts(expected: ExpectedVisits, number: int, *, seed: int) -> Counts:
    """Whole visits out of expected ones; int32 [N + n], at least one visit in all.

    A plan whose epoch would be shorter than one visit (a target weight below 1 / n alone) takes its likeliest row.
    """
    counts = resampled_counts(expected, seed=seed, epoch=number)
    if not counts.any():
        counts[expected.likeliest()] = 1
    return counts
