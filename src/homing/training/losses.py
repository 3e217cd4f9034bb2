"""The loss of each sample, and whether its answer is right: one class a row, or a set of them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def sample_losses(logits: Tensor, labels: Tensor, sets: Tensor | None = None) -> Tensor:
    """Loss of each row, `[B]`: the cross entropy, or the binary one where rows have sets, its mean over classes.

    Args:
        logits: `[B, C]` float32.
        labels: int64 `[B]`: the class, or the position in `sets`.
        sets: bool `[K, C]`, whether each of K sets holds each class; None where a row is of one class.
    """
    if sets is None:
        return functional.cross_entropy(logits, labels, reduction="none")
    wanted = sets[labels].to(logits)
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)


def is_right(logits: Tensor, labels: Tensor, sets: Tensor | None = None) -> Tensor:
    """Whether the likeliest class is that of the row, or the classes above a half are its set; bool `[B]`."""
    if sets is None:
        return logits.argmax(1) == labels
    return ((logits > 0) == sets[labels]).all(dim=1)
