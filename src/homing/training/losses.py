"""The loss of each sample, and whether its answer is right: one class a row, or a set of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-30  # of a likelihood, before its logarithm is taken


def sample_losses(logits: Tensor, labels: Tensor, sets: Tensor | None = None, right: Tensor | None = None) -> Tensor:
    """Loss of each row, `[B]`: the cross entropy, or the binary one where rows have sets, its mean over classes.

    Where labels may be wrong it is `-log(r p + (1 - r) (1 - p) / (C - 1))`, p being the model's probability of the
    label and r that of the label being right: a wrong label speaks for all other classes alike (forward correction,
    Patrini et al. 2017, row by row). The surer the model is of another class, the less such a row counts.

    Args:
        logits: `[B, C]` float32.
        labels: int64 `[B]`: the class, or the position in `sets`.
        sets: bool `[K, C]`, whether each of K sets holds each class; None where a row is of one class.
        right: `[B]` in 0..1, probability that each label is right; None: they are. Not for sets.
    """
    if sets is None:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return losses if right is None else _in_doubt(losses, right, logits.isfinite().sum(dim=1) - 1)
    wanted = sets[labels].to(logits)
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)


def is_right(logits: Tensor, labels: Tensor, sets: Tensor | None = None) -> Tensor:
    """Whether the likeliest class is that of the row, or the classes above a half are its set; bool `[B]`."""
    if sets is None:
        return logits.argmax(1) == labels
    return ((logits > 0) == sets[labels]).all(dim=1)


def _in_doubt(losses: Tensor, right: Tensor, num_others: Tensor) -> Tensor:
    """Losses `[B]` of labels that are right with probability `right`, from those that take them as right."""
    own = (-losses).exp()
    likely = right * own + (1 - right) * (1 - own) / num_others.clamp(min=1)
    return torch.where(right < 1, -likely.clamp(min=_LEAST).log(), losses)
