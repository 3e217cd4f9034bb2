"""Weights of a step's samples from its own alignments: learning to reweight (L2RW), and a net of the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from homing.rates.online.reweighting import WeightNet, aligned_weights
from homing.training.distributed import mean_over_processes
from homing.training.guide import Observer, of_all_processes
from homing.training.online import Moved, named_parts, part_of


class Reweighting:
    """Weighs the source samples of every step; each sample is weighed anew at each visit.

    Args:
        observer: Takes the alignments.
        net: Gives weights by losses (Meta-Weight-Net), and learns from every step; None: weights follow the step's own
            alignments (L2RW), for which it is rehearsed first.
    """

    def __init__(self, observer: Observer, net: WeightNet | None) -> None:
        self.observer, self.net = observer, net
        self.rehearses, self.foresees = net is None, net is not None
        self._scale: Tensor | None = None  # mean of the net's output over the step at hand, where it was foreseen
        num_source = observer.guide.num_source
        # the weights of the step at hand, and the sum and number of all that each row was given
        self._now = torch.ones(num_source)
        self._total, self._visits = torch.zeros(num_source), torch.zeros(num_source)
        self._lost: list[tuple[Tensor, Tensor]] = []

    def is_due(self, step: int) -> bool:
        """Every step is observed while it trains, unless it was rehearsed."""
        return not self.rehearses

    def learn(self, at_most: int | None = None) -> None:
        """Weights of the rehearsed step (L2RW), or a step of the net."""
        rows, alignments = self.observer.take(at_most)
        if self.net is None:
            weights = aligned_weights(alignments.float())
            self._now[rows] = weights
        else:
            _, losses = of_all_processes(self._lost, self.observer.guide.num_source, at_most)
            self._scale = None
            weights = self.net.weights(losses.float())
            self.net.learn(losses, alignments)
        self._total.index_add_(0, rows, weights)
        self._visits.index_add_(0, rows, torch.ones(len(rows)))

    def foresee(self, losses: Tensor) -> None:
        """Scale the weights of a step that is cut into parts over all of it, as those of a whole one are."""
        if self.net is not None:
            self._scale = mean_over_processes(self.net.raw(losses))

    def weights(self, rows: Tensor, losses: Tensor, *, idle: bool = False) -> Tensor:
        """Weights of the step's source rows, mean 1 over the step in all processes; float32."""
        if self.net is None:
            return self._now[rows]
        losses = losses.detach().float().cpu()
        raw = self.net.raw(losses)
        scale = self._scale if self._scale is not None else mean_over_processes(raw[:0] if idle else raw)
        if not idle:
            self._lost.append((rows, losses))
        return raw / scale

    def draws(self) -> None:
        """Nothing: every sample is visited, whatever its weights were."""
        return

    def rates(self) -> Tensor:
        """Mean weight that each source row was given, 1 where it was never seen; float32 [N]."""
        return torch.where(self._visits > 0, self._total / self._visits.clamp(min=1), 1.0)

    def alignments(self) -> None:
        """Nothing is kept of single samples."""
        return

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return named_parts(
            own={"total": self._total.clone(), "visits": self._visits.clone()},
            direction=self.observer.guide.direction.state_dict(),
            net={} if self.net is None else self.net.state(),
        )

    def load(self, state: dict[str, Tensor], moved: Moved = lambda saved, fresh: saved) -> None:
        """Undo `state`, perhaps of another pool."""
        nothing = torch.zeros_like(self._total)
        self._total.copy_(moved(state["own/total"], nothing))
        self._visits.copy_(moved(state["own/visits"], nothing))
        self.observer.guide.direction.load_state_dict(part_of(state, "direction"))
        if self.net is not None:
            self.net.load(part_of(state, "net"))
