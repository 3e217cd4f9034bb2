"""The target as a guide: its gradient on a few of its images every few steps, and what aligns with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, tee

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn, optim

from homing.errors import DivergedError
from homing.models.inputs import Inputs
from homing.models.parts import autocast
from homing.rates import Alignment, Direction, gather_updates
from homing.rates.order import Rows, share_of_rank
from homing.training.losses import sample_losses


class Guide:
    """The target's gradient while a model trains.

    Args:
        inputs: Pictures or features by row.
        labels: int64 [N + n], source rows first, then target rows.
        num_source: N.
        accelerator: Device and processes.
        batch_size: Target images a gradient.
        refresh_every: Steps between two gradients.
        window: Gradients averaged (exponentially).
        precision: As the training's.
        preconditioned: Whether alignments are with the optimizer's step, or with that of plain SGD.
        seed: Of the order of target images.
        sets: As in `sample_losses`.
    """

    def __init__(
        self,
        inputs: Inputs,
        labels: Tensor,
        num_source: int,
        accelerator: Accelerator,
        *,
        batch_size: int = 8,
        refresh_every: int = 8,
        window: int = 4,
        precision: str = "fp32",
        preconditioned: bool = True,
        seed: int = 0,
        sets: Tensor | None = None,
    ) -> None:
        self.sets = None if sets is None else sets.to(accelerator.device)
        self.inputs, self.labels, self.num_source, self.accelerator = inputs, labels, num_source, accelerator
        self.batch_size = min(batch_size, len(labels) - num_source)
        self.refresh_every, self.window, self.precision, self.seed = refresh_every, window, precision, seed
        self.preconditioned = preconditioned
        self._next = -1  # number of the gradient whose inputs are read next
        self._ahead: Iterator[tuple[Rows, Tensor]] = iter(())

    def attach(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Take the model and the optimizer whose steps are to be guided."""
        self.model = model
        steps_by = optimizer if self.preconditioned else None
        self.direction = Direction(model, steps_by, window=self.window)

    def refresh(self, step: int) -> None:
        """Every few steps, the target's gradient on a few of its images, without augmentation."""
        if step % self.refresh_every:
            return
        mine, images = self._inputs(step // self.refresh_every)
        idle = self.accelerator.process_index >= self.batch_size
        factor = 0.0 if idle else self.accelerator.num_processes / self.batch_size
        training = {module: module.training for module in self.model.modules()}
        self.model.eval()
        with autocast(self.accelerator.device, self.precision):
            logits = self.model(images).float()
        labels = self.labels[torch.from_numpy(mine)].to(logits.device)
        self.direction.update(sample_losses(logits, labels, self.sets).sum() * factor)
        for module, mode in training.items():
            module.training = mode

    def _inputs(self, number: int) -> tuple[Rows, Tensor]:
        """This process's rows of the `number`-th gradient with their inputs; those of the next ones are read ahead."""
        if number != self._next:
            here, ahead = tee(map(self._mine, count(number)))
            self._ahead = zip(here, self.inputs.evaluating(ahead), strict=True)
        self._next = number + 1
        return next(self._ahead)

    def _mine(self, number: int) -> Rows:
        """Rows that this process takes; one for nothing where there are fewer than processes."""
        rows = self.rows(number)
        mine = share_of_rank(rows, self.accelerator.process_index, self.accelerator.num_processes)
        return mine if len(mine) else rows[:1]

    def rows(self, number: int) -> Rows:
        """Target rows of the `number`-th gradient: all of them in turn, shuffled anew each time round."""
        total, size = len(self.labels) - self.num_source, self.batch_size
        positions = np.arange(number * size, (number + 1) * size)
        rounds = {r: np.random.default_rng([self.seed, int(r), 2]).permutation(total) for r in {*positions // total}}
        return self.num_source + np.array([rounds[p // total][p % total] for p in positions])

    def gradients(self, num_steps: int) -> int:
        """Gradient evaluations that so many steps take of the target for guidance alone."""
        return self.batch_size * -(-num_steps // self.refresh_every)


class Observer:
    """Takes the alignments of source samples with the guide out of the passes of a training.

    Args:
        guide: The target's gradient.
        scope: Parameters whose gradients align.

    Attributes:
        trouble: Why the step at hand must not be taken: alignments are not finite. Noted, not raised, since all
            processes have to learn of it before one may stop.
    """

    def __init__(self, guide: Guide, scope: str = "all") -> None:
        self.guide, self.scope = guide, scope
        self.trouble: str | None = None
        self._seen: list[tuple[Tensor, Tensor]] = []

    def attach(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Take the model and the optimizer whose steps are to be observed."""
        self.guide.attach(model, optimizer)
        self.alignment = Alignment(model, scope=self.scope)

    @contextmanager
    def observe(self, rows: Rows, *, idle: bool) -> Iterator[Alignment]:
        """Observe one forward and backward pass over some rows."""
        with self.alignment.observe(self.guide.direction):
            yield self.alignment
        if idle:
            return
        try:
            self._seen.append((torch.from_numpy(rows), self.alignment.values().float().cpu()))
        except DivergedError as error:
            self.trouble = str(error)

    def take(self, at_most: int | None = None) -> tuple[Tensor, Tensor]:
        """Source rows [k] and alignments [k] that all processes observed since the last time; `at_most` in each."""
        return of_all_processes(self._seen, self.guide.num_source, at_most)


def of_all_processes(
    seen: list[tuple[Tensor, Tensor]], num_source: int, at_most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Source rows and values that all processes noted, on the CPU; empties the list of this one's."""
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0)
    rows, values = (torch.cat(parts) for parts in zip(*seen or [nothing], strict=True))
    seen.clear()
    source = rows < num_source
    return gather_updates(rows[source], values[source], at_most=at_most)
