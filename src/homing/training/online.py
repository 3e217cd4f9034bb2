"""What is learned of single samples while the model trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from homing.rates import RateTable
from homing.training.guide import Observer

Moved = Callable[[Tensor, Tensor], Tensor]
"""Brings values of a checkpoint's rows to this run's, given those of rows that are new."""

_PER_ROW = ("table/rate", "table/velocity", "table/alignment", "table/visits")


class Online(Protocol):
    """Learns from the steps of a fine-tuning what its source samples are worth.

    Attributes:
        observer: Takes the alignments.
        rehearses: Whether the weights of a step need a pass of their own before it.
        foresees: Whether they need the losses of all parts of the step before the first is weighted.
    """

    observer: Observer
    rehearses: bool
    foresees: bool

    def is_due(self, step: int) -> bool:
        """Whether a step is observed while it trains."""
        ...

    def learn(self, at_most: int | None = None) -> None:
        """Learn from what was observed in this step, in any process; none observed more rows than `at_most`."""
        ...

    def foresee(self, losses: Tensor) -> None:
        """Take note of the losses of this process's source rows in the step at hand, on the CPU."""
        ...

    def weights(self, rows: Tensor, losses: Tensor, *, idle: bool = False) -> Tensor:
        """What the losses [B] of these source rows [B] are multiplied by where samples are weighted; float32 [B].

        All processes call this together; idle: this one's rows do not count.
        """
        ...

    def draws(self) -> Tensor | None:
        """What the plan's rates are multiplied by when an epoch is drawn, float32 [N]; None: nothing."""
        ...

    def rates(self) -> Tensor:
        """What was learned of each source sample, as a rate; float32 [N]."""
        ...

    def alignments(self) -> Tensor | None:
        """Running alignment of each source sample, centred within its class, in running scales; float32 [N]."""
        ...

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        ...

    def load(self, state: dict[str, Tensor], moved: Moved) -> None:
        """Undo `state`, perhaps of another pool."""
        ...


@dataclass(frozen=True)
class OnlineSettings:
    """How instance rates are learned. Names as in the recipe's `rates`."""

    observe_every: int = 4
    step_size: float = 0.1
    momentum: float = 0.9
    decay: float = 0.01
    max_rate: float = 3.0


class OnlineRates:
    """Moves the rate of each source sample by its alignments. Every process keeps the same table.

    Args:
        settings: How.
        observer: Takes the alignments.
        num_classes: Of the run; alignments are centred within the class.
        classes: int64 [N + n], in place of the guide's labels where these are positions of sets.
    """

    rehearses = False
    foresees = False

    def __init__(
        self, settings: OnlineSettings, observer: Observer, num_classes: int, classes: Tensor | None = None
    ) -> None:
        self.observer, self._every = observer, settings.observe_every
        self._classes = observer.guide.labels if classes is None else classes
        self.table = RateTable(
            observer.guide.num_source,
            learning_rate=settings.step_size,
            momentum=settings.momentum,
            decay=settings.decay,
            max_rate=settings.max_rate,
            num_classes=num_classes,
        )

    def is_due(self, step: int) -> bool:
        """Whether a step is observed."""
        return step % self._every == 0

    def learn(self, at_most: int | None = None) -> None:
        """Move the rates of what was observed in this step, in any process."""
        rows, values = self.observer.take(at_most)
        self.table.update(rows, values, self._classes[rows])

    def foresee(self, losses: Tensor) -> None:
        """Nothing: rates do not follow the losses."""

    def weights(self, rows: Tensor, losses: Tensor, *, idle: bool = False) -> Tensor:
        """Rates of some source rows; float32."""
        return self.table[rows]

    def draws(self) -> Tensor:
        """Rates of all source rows; float32 [N]."""
        return self.table.rates

    def rates(self) -> Tensor:
        """Rates of all source rows; float32 [N]."""
        return self.table.rates

    def alignments(self) -> Tensor:
        """Running alignment of each source sample, centred within its class, in running scales; float32 [N]."""
        return self.table.alignments

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return named_parts(table=self.table.state_dict(), direction=self.observer.guide.direction.state_dict())

    def load(self, state: dict[str, Tensor], moved: Moved = lambda saved, fresh: saved) -> None:
        """Undo `state`, perhaps of another pool."""
        fresh = self.state()
        state = state | {name: moved(state[name], fresh[name]) for name in _PER_ROW}
        self.table.load_state_dict(part_of(state, "table"))
        self.observer.guide.direction.load_state_dict(part_of(state, "direction"))


def named_parts(**parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """One state out of several, each tensor's name behind that of its part."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def part_of(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part of a state."""
    return {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}
