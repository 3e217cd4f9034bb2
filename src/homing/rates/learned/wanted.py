"""Which unlabelled images to label next: those that are uncertain, of the target's domain, and unlike one another."""

from __future__ import annotations

import torch
from torch import Tensor

from homing.rates.learned.blocks import FeatureBlocks, MappedFeatures, as_blocks
from homing.rates.learned.guesses import Guesses
from homing.rates.learned.projection import Projection

WANTED = 20
_LOOKED_AT = 2_000


def wanted_labels(
    guesses: Guesses,
    unlabelled: Tensor | FeatureBlocks,
    target_features: Tensor,
    projection: Projection,
    count: int = WANTED,
) -> list[tuple[int, float]]:
    """Images whose labels would tell most, the best first, each with its score in 0..1.

    The score is the probability that the guess is wrong, times that of the target's domain, times how far the image is
    from the nearest that is labelled or chosen already: `d / (d + m)`, `m` being the median distance to the labelled.
    The images are chosen one after the other.

    Args:
        guesses: Of the U images.
        unlabelled: `[U, D]` their features.
        target_features: `[n, D]` of the labelled target.
        projection: To the components in which distances are taken.
        count: Images to choose; all where there are no more.

    Returns:
        (row, score), row in 0..U-1.
    """
    gain = (1 - guesses.right) * guesses.match
    rows = gain.argsort(descending=True, stable=True)[:_LOOKED_AT].sort().values
    features = MappedFeatures(as_blocks(unlabelled), projection, projection.width).rows(rows)
    gain, known = gain[rows], projection(target_features)
    nearest = torch.cdist(features, known).amin(dim=1)
    middle = nearest.median().clamp(min=torch.finfo(torch.float32).tiny)
    chosen: list[tuple[int, float]] = []
    left = torch.ones(len(rows), dtype=torch.bool)
    for _ in range(min(count, len(rows))):
        scores = torch.where(left, gain * nearest / (nearest + middle), -1.0)
        best = int(scores.argmax())
        chosen.append((int(rows[best]), float(scores[best])))
        left[best] = False
        nearest = torch.minimum(nearest, (features - features[best]).norm(dim=1))
    return chosen
