"""Two models on the same images: how far their figures differ, and how much of that is the luck of images and seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from homing.evaluation.multi_label import paired_set_intervals

DRAWS = 2000
_MAX_COUNTS = 4_000_000  # floats in one block of resampled counts: bounds memory

Interval = dict[str, float]
"""mean, low, high: a difference with its 95 % interval."""


def paired_intervals(ours: Tensor, theirs: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, Interval]:
    """Accuracy, macro F1 and NLL, ours minus theirs, with paired bootstrap intervals of 95 %.

    Images are drawn with replacement, the same for both models and all seeds, and seeds are drawn with replacement
    where there are several: a seed's models share their luck, and so does an image under every seed.

    Args:
        ours: Logits `[K, M, C]` of K seeds on the same M images.
        theirs: The same of the other model.
        labels: int64 `[M]`, or bool `[M, C]` where an image may be of several classes (see `paired_set_intervals`).
        seed: Of the bootstrap.

    Returns:
        Figure to its interval; shares in -1..1, NLL in nats.
    """
    if labels.ndim == 2:
        return paired_set_intervals(ours, theirs, labels, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    models = _Predictions.of(ours, labels), _Predictions.of(theirs, labels)
    whole = torch.ones(1, len(labels), dtype=torch.float64), torch.ones(1, len(ours), dtype=torch.float64)
    means = _differences(*models, *whole)
    blocks = [_differences(*models, *block) for block in _resamples(len(labels), len(ours), generator)]
    drawn = {name: torch.cat([block[name] for block in blocks]) for name in means}
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {
        name: dict(zip(("mean", "low", "high"), [float(mean), *drawn[name].quantile(ends).tolist()], strict=True))
        for name, mean in means.items()
    }


def _resamples(num_images: int, num_seeds: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """How often each image `[B, M]` and each seed `[B, K]` is drawn, block by block."""
    size = max(1, min(DRAWS, _MAX_COUNTS // num_images))
    for begin in range(0, DRAWS, size):
        num_draws = min(size, DRAWS - begin)
        yield _counts(num_draws, num_images, generator), _counts(num_draws, num_seeds, generator)


def _counts(num_draws: int, size: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(size, (num_draws, size), generator=generator)
    counts = torch.zeros(num_draws, size, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


@dataclass(frozen=True)
class _Predictions:
    """A model's predictions `[K, M]`, hits and losses of them, and the labels `[M]`."""

    predicted: Tensor
    hits: Tensor
    losses: Tensor
    labels: Tensor
    num_classes: int

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> _Predictions:
        predicted, repeated = logits.argmax(dim=2), labels.expand(len(logits), -1)
        losses = functional.cross_entropy(logits.double().transpose(1, 2), repeated, reduction="none")
        return cls(predicted, (predicted == repeated).double(), losses, labels, logits.shape[2])

    def figures(self, images: Tensor) -> dict[str, Tensor]:
        """Figures under counts of images `[B, M]`: `[B, K]` each."""
        num_images = images.sum(dim=1, keepdim=True)
        return {
            "accuracy": images @ self.hits.T / num_images,
            "macro_f1": torch.stack([self._macro_f1(images, index) for index in range(len(self.predicted))], dim=1),
            "nll": images @ self.losses.T / num_images,
        }

    def _macro_f1(self, images: Tensor, index: int) -> Tensor:
        """Over the classes that occur in a draw, `[B]`."""
        zeros = torch.zeros(len(images), self.num_classes, dtype=torch.float64)
        right = zeros.index_add(1, self.labels, images * self.hits[index])
        either = zeros.index_add(1, self.labels, images).index_add(1, self.predicted[index], images)
        return (2 * right / either.clamp(min=1)).sum(dim=1) / (either > 0).sum(dim=1)


def _differences(ours: _Predictions, theirs: _Predictions, images: Tensor, seeds: Tensor) -> dict[str, Tensor]:
    """Ours minus theirs in every draw, `[B]` of each figure; images `[B, M]` and seeds `[B, K]` as counts."""
    first, second = ours.figures(images), theirs.figures(images)
    shares = seeds / seeds.sum(dim=1, keepdim=True)
    return {name: ((first[name] - second[name]) * shares).sum(dim=1) for name in first}
