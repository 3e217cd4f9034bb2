"""Figures of several models on the same images, and under draws of these images with replacement (the bootstrap)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from homing.measures import MANY_CLASSES

DRAWS = 2000
ENDS = (0.025, 0.975)
FEW = 10
"""Of fewer images than this an interval says little: they may all be alike by chance."""
_MAX_COUNTS = 4_000_000  # floats in one block of resampled counts: bounds memory


def resamples(num_images: int, num_seeds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """How often each image `[B, M]` and each seed `[B, K]` is drawn, block by block; 2,000 draws in all."""
    generator = torch.Generator().manual_seed(seed)
    size = max(1, min(DRAWS, _MAX_COUNTS // num_images))
    for begin in range(0, DRAWS, size):
        num_draws = min(size, DRAWS - begin)
        yield _counts(num_draws, num_images, generator), _counts(num_draws, num_seeds, generator)


def all_once(num_images: int) -> Tensor:
    """The images themselves as a draw, `[1, M]`."""
    return torch.ones(1, num_images, dtype=torch.float64)


def ends_of(drawn: Tensor) -> tuple[float, float]:
    """The interval of 95 % of a figure's draws `[B]`, of those in which it is defined."""
    low, high = drawn.nanquantile(torch.tensor(ENDS, dtype=torch.float64)).tolist()
    return low, high


def _counts(num_draws: int, size: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(size, (num_draws, size), generator=generator)
    counts = torch.zeros(num_draws, size, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


@dataclass(frozen=True)
class Predictions:
    """What K models (seeds) say of M images, as far as figures are made of it.

    Attributes:
        predicted: int64 `[K, M]`.
        means: Figure → what it is the mean of over images, `[K, M]`.
        ranks: Of each image by the second of two classes, ties alike, int64 `[K, M]`; None for other numbers of
            classes.
        labels: int64 `[M]`.
        num_classes: C.
    """

    predicted: Tensor
    means: dict[str, Tensor]
    ranks: Tensor | None
    labels: Tensor
    num_classes: int

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Predictions:
        """From logits `[K, M, C]` and labels int64 `[M]`."""
        logits, repeated = logits.double(), labels.expand(len(logits), -1)
        predicted, num_classes = logits.argmax(dim=2), logits.shape[2]
        losses = functional.cross_entropy(logits.transpose(1, 2), repeated, reduction="none")
        means = {"accuracy": (predicted == repeated).double(), "nll": losses}
        if num_classes > MANY_CLASSES:
            five = logits.topk(5, dim=2).indices
            means["top5_accuracy"] = (five == repeated[..., None]).any(dim=2).double()
        ranks = None
        if num_classes == 2:
            ranks = torch.stack([row.unique(return_inverse=True)[1] for row in logits[:, :, 1] - logits[:, :, 0]])
        return cls(predicted, means, ranks, labels, num_classes)

    def figures(self, images: Tensor) -> dict[str, Tensor]:
        """Figures under counts of images `[B, M]`: `[B, K]` each, NaN in draws where a figure is not defined."""
        num_images = images.sum(dim=1, keepdim=True)
        found = {name: images @ values.T / num_images for name, values in self.means.items()}
        each = [self._by_class(images, index) for index in range(len(self.predicted))]
        return found | {name: torch.stack([one[name] for one in each], dim=1) for name in each[0]}

    def _by_class(self, images: Tensor, index: int) -> dict[str, Tensor]:
        """Figures of one model that are averages over classes, `[B]` each.

        Recall over the classes that occur in a draw, F1 over those that occur or are predicted there.
        """
        zeros = torch.zeros(len(images), self.num_classes, dtype=torch.float64)
        right = zeros.index_add(1, self.labels, images * self.means["accuracy"][index])
        true = zeros.index_add(1, self.labels, images)
        either = true.index_add(1, self.predicted[index], images)
        found = {
            "balanced_accuracy": (right / true.clamp(min=1)).sum(dim=1) / (true > 0).sum(dim=1),
            "macro_f1": (2 * right / either.clamp(min=1)).sum(dim=1) / (either > 0).sum(dim=1),
        }
        return found if self.ranks is None else found | {"auroc": self._auroc(images, self.ranks[index])}

    def _auroc(self, images: Tensor, ranks: Tensor) -> Tensor:
        """How often the second class outranks the first, ties half; `[B]`."""
        zeros = torch.zeros(len(images), int(ranks.max()) + 1, dtype=torch.float64)
        above = zeros.index_add(1, ranks, images * (self.labels == 1))
        below = zeros.index_add(1, ranks, images * (self.labels == 0))
        outranked = (above * (below.cumsum(dim=1) - below / 2)).sum(dim=1)
        return outranked / (above.sum(dim=1) * below.sum(dim=1))
