"""What others make of alignments: weights for one step's samples, without a memory of each sample.

Both methods were published with a meta-gradient through an SGD step, by double backward. Its exact value is the
alignment of each sample with the target's gradient, so that none is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

HIDDEN = 100
META_LEARNING_RATE = 1e-3


def aligned_weights(alignments: Tensor) -> Tensor:
    """Weights in proportion to what each sample of a batch is aligned with the target (L2RW, Ren et al. 2018).

    `w = max(0, a)`, scaled to sum 1 over the batch there, to mean 1 here, so that a step is as long as any other.

    Args:
        alignments: `[B]`.

    Returns:
        `[B]`, at least 0, mean 1; all 0 where no sample is aligned.
    """
    kept = alignments.clamp(min=0.0)
    total = kept.sum()
    return kept * (len(kept) / total) if total > 0 else kept


class WeightNet:
    """A sample's loss to its weight, by a net with one hidden layer (Meta-Weight-Net, Shu et al. 2019).

    1-100-1 with a sigmoid, trained by Adam on the meta-gradient `-sum_i a_i dw_i / dpsi`. Weights are scaled to mean 1
    over the batch, as the authors' code does (to sum 1), and the gradient goes through that.

    Args:
        seed: Of the net's first weights.
        learning_rate: Of Adam.
    """

    def __init__(self, seed: int = 0, learning_rate: float = META_LEARNING_RATE) -> None:
        generator = torch.Generator().manual_seed(seed)
        first = torch.rand(2 * HIDDEN, generator=generator) * 2 - 1  # as torch starts a layer with one input
        second = (torch.rand(HIDDEN + 1, generator=generator) * 2 - 1) / HIDDEN**0.5
        self._psi = torch.cat([first, second]).requires_grad_()
        self._optimizer = torch.optim.Adam([self._psi], lr=learning_rate)

    @torch.no_grad()
    def weights(self, losses: Tensor) -> Tensor:
        """Weights `[B]` of the samples with these losses `[B]`: above 0, mean 1."""
        return self._weights(losses)

    @torch.no_grad()
    def raw(self, losses: Tensor) -> Tensor:
        """The net's own output `[B]` in (0, 1), for weights that are scaled over more than these samples."""
        return self._raw(losses)

    def learn(self, losses: Tensor, alignments: Tensor) -> None:
        """One step on the meta-gradient.

        Args:
            losses: `[B]` of the samples that were trained on.
            alignments: `[B]` of the same samples.
        """
        if not len(losses):
            return
        with torch.enable_grad():
            meta = -(alignments.to(self._psi) * self._weights(losses)).mean()
            (gradient,) = torch.autograd.grad(meta, self._psi)
        self._psi.grad = gradient
        self._optimizer.step()
        self._psi.grad = None

    def _weights(self, losses: Tensor) -> Tensor:
        raw = self._raw(losses)
        return raw / raw.mean()

    def _raw(self, losses: Tensor) -> Tensor:
        psi = self._psi.to(losses.device)
        inner, offset, outer, last = psi[:HIDDEN], psi[HIDDEN : 2 * HIDDEN], psi[2 * HIDDEN : -1], psi[-1]
        hidden = functional.relu(losses.detach().float()[:, None] * inner + offset)
        return torch.sigmoid(hidden @ outer + last)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        adam = {name: value.clone() for name, value in self._optimizer.state[self._psi].items()}
        return {"psi": self._psi.detach().clone(), **{f"adam/{name}": value for name, value in adam.items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        with torch.no_grad():
            self._psi.copy_(state["psi"])
        adam = {name.removeprefix("adam/"): value.clone() for name, value in state.items() if name.startswith("adam/")}
        self._optimizer.state[self._psi] = adam
