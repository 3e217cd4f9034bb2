"""Rates of single instances, learned from alignments while the model trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn, optim
from torch.nn import functional

from homing.errors import DivergedError
from homing.models.inputs import Inputs
from homing.models.parts import autocast
from homing.pools.order import Rows, share_of_rank
from homing.rates import Alignment, Direction, RateTable, gather_updates

Moved = Callable[[Tensor, Tensor], Tensor]
_PER_ROW = ("table/rate", "table/velocity", "table/alignment", "table/visits")


@dataclass(frozen=True)
class OnlineSettings:
    """How instance rates are learned. Names as in the recipe's `rates`; guide_* as in `rates.guide`."""

    observe_every: int = 4
    scope: str = "all"
    step_size: float = 0.1
    momentum: float = 0.9
    decay: float = 0.01
    max_rate: float = 3.0
    guide_batch_size: int = 8
    guide_refresh_every: int = 8
    guide_window: int = 4
    precision: str = "fp32"
    seed: int = 0


class OnlineRates:
    """Observes training steps, and moves the rate of each source sample seen in them.

    Args:
        settings: How.
        inputs: Pictures or features by row.
        labels: int64 [N + n], source rows first, then target rows.
        num_source: N.
        num_classes: Of the run; alignments are centred within the class.
        accelerator: Device and processes. Every process keeps the same table.
    """

    def __init__(
        self,
        settings: OnlineSettings,
        inputs: Inputs,
        labels: Tensor,
        *,
        num_source: int,
        num_classes: int,
        accelerator: Accelerator,
    ) -> None:
        self.settings, self.inputs, self.labels, self.num_source = settings, inputs, labels, num_source
        self.accelerator = accelerator
        self.table = RateTable(
            num_source,
            learning_rate=settings.step_size,
            momentum=settings.momentum,
            decay=settings.decay,
            max_rate=settings.max_rate,
            num_classes=num_classes,
        )
        self.trouble: str | None = None
        self._seen: list[tuple[Tensor, Tensor]] = []

    def attach(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Take the model and the optimizer whose steps are to be observed."""
        self.model = model
        self.alignment = Alignment(model, self.settings.observe_every, self.settings.scope)
        self.direction = Direction(model, optimizer, window=self.settings.guide_window)

    def is_due(self, step: int) -> bool:
        """Whether a step is observed."""
        return self.alignment.due(step)

    def refresh_direction(self, step: int) -> None:
        """Every few steps, the target's gradient on a few of its images, without augmentation."""
        if step % self.settings.guide_refresh_every:
            return
        rows = self._guide_rows(step // self.settings.guide_refresh_every)
        mine = share_of_rank(rows, self.accelerator.process_index, self.accelerator.num_processes)
        factor = self.accelerator.num_processes / len(rows)
        mine, factor = (mine, factor) if len(mine) else (rows[:1], 0.0)
        training = {module: module.training for module in self.model.modules()}
        self.model.eval()
        with autocast(self.accelerator.device, self.settings.precision):
            logits = self.model(self.inputs.evaluation(mine)).float()
        labels = self.labels[torch.from_numpy(mine)].to(logits.device)
        self.direction.update(functional.cross_entropy(logits, labels, reduction="sum") * factor)
        for module, mode in training.items():
            module.training = mode

    @contextmanager
    def observe(self, rows: Rows, *, idle: bool) -> Iterator[Alignment]:
        """Observe one forward and backward pass over some rows.

        Alignments that are not finite are noted in `trouble`: all processes have to learn of it before one may stop.
        """
        with self.alignment.observe(self.direction):
            yield self.alignment
        if idle:
            return
        try:
            self._seen.append((torch.from_numpy(rows), self.alignment.values().float().cpu()))
        except DivergedError as error:
            self.trouble = str(error)

    def learn(self) -> None:
        """Move the rates of what was observed in this step, in any process."""
        observed = self._seen or [(torch.empty(0, dtype=torch.int64), torch.empty(0))]
        rows, values = (torch.cat(parts) for parts in zip(*observed, strict=True))
        self._seen.clear()
        source = rows < self.num_source
        rows, values = gather_updates(rows[source], values[source])
        self.table.update(rows, values, self.labels[rows])

    def rates(self, rows: Tensor | None) -> Tensor:
        """Rates of some source rows, or of all; float32."""
        return self.table.rates if rows is None else self.table[rows]

    def alignments(self) -> Tensor:
        """Running alignment of each source sample, centred within its class, in running scales; float32 [N]."""
        return self.table.alignments

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        parts = {"table": self.table.state_dict(), "direction": self.direction.state_dict()}
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def load(self, state: dict[str, Tensor], moved: Moved = lambda saved, fresh: saved) -> None:
        """Undo `state`.

        Args:
            state: From `state`, perhaps of another pool.
            moved: Brings values of the saved rows to this pool's, given those of rows that are new.
        """
        fresh = self.state()
        state = state | {name: moved(state[name], fresh[name]) for name in _PER_ROW}
        for part, owner in (("table/", self.table), ("direction/", self.direction)):
            tensors = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
            owner.load_state_dict(tensors)

    def _guide_rows(self, number: int) -> Rows:
        """Target rows of the `number`-th gradient: all of them in turn, shuffled anew each time round."""
        count = len(self.labels) - self.num_source
        size = min(self.settings.guide_batch_size, count)
        positions = np.arange(number * size, (number + 1) * size)
        rounds = [np.random.default_rng([self.settings.seed, int(r), 2]).permutation(count) for r in positions // count]
        return self.num_source + np.array([order[p % count] for order, p in zip(rounds, positions, strict=True)])
