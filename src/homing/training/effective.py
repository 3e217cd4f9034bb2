"""The effective sample size of rates that are asked for in every step, without a look at all of them in each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from homing.rates.learned.plan import effective_sample_size


class EffectiveSize:
    """A plan's is known once a phase; where rates move, it is taken anew once a tenth of the source was visited.

    Args:
        num_source: Rows of the source.
        batch_size: Rows of a global batch.
        moves: Whether rates move within a phase.
    """

    def __init__(self, num_source: int, batch_size: int, *, moves: bool) -> None:
        self._num_source, self._batch_size, self._moves = num_source, batch_size, moves
        self._known: tuple[float, int, int] | None = None  # size, the step it was taken at, that phase's end

    def at(self, step: int, phase_end: int, rates: Callable[[], Tensor]) -> float:
        """That of a step; `rates` gives all rates as they are."""
        known = self._known
        if known is not None and known[2] == phase_end:
            visited = (step - known[1]) * self._batch_size
            if not self._moves or 10 * visited < self._num_source:
                return known[0]
        self._known = effective_sample_size(rates()), step, phase_end
        return self._known[0]

    def state(self) -> list[float] | None:
        """Plain values for a checkpoint."""
        return None if self._known is None else list(self._known)

    def load(self, known: list[float] | None) -> None:
        """Undo `state`."""
        self._known = None if known is None else (float(known[0]), int(known[1]), int(known[2]))
