"""What a fine-tuning trains on: how much each source sample and each target image counts, phase by phase."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from homing.rates.learned.plan import Doubt


@dataclass(frozen=True)
class Phase:
    """A stretch of the training with fixed masses.

    Attributes:
        rates: Rate of each source sample, >= 0, mean 1 where the source counts at all; behind them those of the
            unlabelled images, where their labels are guessed; float32 [N + U].
        target_weight: Times an epoch takes each target image, >= 0.
        share: Of the steps, (0, 1]; the shares of all phases add up to 1.
    """

    rates: Tensor
    target_weight: float
    share: float = 1.0


@dataclass(frozen=True)
class TrainingPlan:
    """Phases in turn; with `online`, samples are also weighed by what is learned from alignments while training.

    Attributes:
        phases: At least one.
        apply: sample (draw samples in proportion to their rate) or weight (weight their loss by it).
        online: What is learned while training: instance (a rate of each sample), l2rw (weights of each step's samples),
            meta_weight_net (a net from loss to weight); None: nothing.
        guesses: Class that each unlabelled image is trained as, int64 [U]; empty where none of them is trained on.
        doubt: How rows are drawn whose labels may be wrong, and how probably these are right, which the loss allows
            for; None: rows are drawn by their rates, and all labels taken as right.
    """

    phases: Sequence[Phase]
    apply: str = "sample"
    online: str | None = None
    guesses: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    doubt: Doubt | None = None

    def with_guesses(self, labels: Tensor, rates: Tensor) -> TrainingPlan:
        """The same, with other unlabelled images than it has: none, or as they are guessed now.

        Args:
            labels: int64 [U].
            rates: float32 [U].
        """
        known = [phase.rates[: len(phase.rates) - len(self.guesses)] for phase in self.phases]
        phases = [replace(phase, rates=torch.cat([own, rates])) for phase, own in zip(self.phases, known, strict=True)]
        return replace(self, phases=phases, guesses=labels)

    def draws(self, phase: Phase) -> Tensor:
        """How often each source row is taken, and behind them each guessed one, float32 [N + U]."""
        if self.doubt is None:
            return phase.rates
        guessed = phase.rates[len(self.doubt.draws) :]
        return torch.cat([self.doubt.draws, guessed]) if len(guessed) else self.doubt.draws

    def right(self, num_rows: int) -> Tensor | None:
        """Probability that the label of each row is right, float32 [num_rows]: of the source's, 1 behind them."""
        if self.doubt is None:
            return None
        return torch.cat([self.doubt.right, torch.ones(num_rows - len(self.doubt.right))])

    @property
    def passes(self) -> int:
        """Gradients that are evaluated of each sample of a step: 2 where it is rehearsed for its weights."""
        return 2 if self.online == "l2rw" else 1

    def phase_at(self, step: int, num_steps: int) -> tuple[Phase, int]:
        """The phase of a step, and the step (exclusive) at which it ends."""
        reached = 0.0
        for phase in self.phases[:-1]:
            reached += phase.share
            if step < round(reached * num_steps):
                return phase, round(reached * num_steps)
        return self.phases[-1], num_steps

    def last_phase_start(self, num_steps: int) -> int:
        """The step at which the last phase begins."""
        return round(sum(phase.share for phase in self.phases[:-1]) * num_steps)

    def digest(self) -> str:
        """sha256 of all that the plan says, 64 hexadecimal digits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.apply} {self.online}".encode())
        for phase in self.phases:
            digest.update(f"{phase.share} {phase.target_weight}".encode())
            digest.update(phase.rates.float().contiguous().numpy().data)
        digest.update(self.guesses.contiguous().numpy().data)  # nothing, where there are none
        for part in () if self.doubt is None else (self.doubt.draws, self.doubt.right):
            digest.update(part.float().contiguous().numpy().data)
        return digest.hexdigest()


def num_steps_of(epochs: float | None, steps: int | None, num_rows: float, batch_size: int) -> int:
    """Optimizer steps of a run: given, or from epochs over `num_rows` samples; at least 1."""
    if steps is not None:
        return steps
    assert epochs is not None
    return max(1, round(epochs * -(-num_rows // batch_size)))
