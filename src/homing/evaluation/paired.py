"""Two models on the same images: how far their figures differ, and how much of that is the luck of images and seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from homing.evaluation.multi_label import SetPredictions, predictions_of
from homing.evaluation.resampling import Predictions, all_once, ends_of, resamples

Interval = dict[str, float]
"""mean, low, high: a difference with its 95 % interval."""


def paired_intervals(ours: Tensor, theirs: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, Interval]:
    """Every figure, ours minus theirs, with paired bootstrap intervals of 95 %.

    Images are drawn with replacement, the same for both models and all seeds, and seeds are drawn with replacement
    where there are several: a seed's models share their luck, and so does an image under every seed.

    Args:
        ours: Logits `[K, M, C]` of K seeds on the same M images.
        theirs: The same of the other model.
        labels: int64 `[M]`, or bool `[M, C]` where an image may be of several classes.
        seed: Of the bootstrap.

    Returns:
        Figure to its interval; shares in -1..1, NLL in nats. Figures that are not defined on these images are left out.
    """
    models = predictions_of(ours, labels), predictions_of(theirs, labels)
    one_each = torch.ones(1, len(ours), dtype=torch.float64)
    means = _differences(*models, all_once(len(labels)), one_each)
    blocks = [_differences(*models, *block) for block in resamples(len(labels), len(ours), seed)]
    return {
        name: dict(
            zip(("mean", "low", "high"), (float(mean), *ends_of(torch.cat([b[name] for b in blocks]))), strict=True)
        )
        for name, mean in means.items()
        if not mean.isnan()
    }


def _differences(
    ours: Predictions | SetPredictions, theirs: Predictions | SetPredictions, images: Tensor, seeds: Tensor
) -> dict[str, Tensor]:
    """Ours minus theirs in every draw, `[B]` of each figure; images `[B, M]` and seeds `[B, K]` as counts."""
    first, second = ours.figures(images), theirs.figures(images)
    shares = seeds / seeds.sum(dim=1, keepdim=True)
    return {name: ((first[name] - second[name]) * shares).sum(dim=1) for name in first}
