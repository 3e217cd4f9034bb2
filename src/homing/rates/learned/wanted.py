"""Which unlabelled images to label next: those that stand for the most images that are uncertain."""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from homing.rates.learned.blocks import FeatureBlocks, MappedFeatures, as_blocks
from homing.rates.learned.guesses import Guesses
from homing.rates.learned.projection import Projection

WANTED = 20
_LOOKED_AT = 2_000
_STARTS = 3


def wanted_labels(
    guesses: Guesses,
    unlabelled: Tensor | FeatureBlocks,
    projection: Projection,
    *,
    count: int = WANTED,
    seed: int = 0,
) -> list[tuple[int, float]]:
    """Images whose labels would tell most, the best first, each with its score in 0..1.

    An image weighs as much as its guess is probably wrong and it is probably of the target's domain. Images are grouped
    by k-means under these weights, and of each group the one nearest to the centre is chosen: neither an odd one out
    nor two of a kind. The score is the group's share of all weight.

    Args:
        guesses: Of the U images.
        unlabelled: `[U, D]` their features.
        projection: To the components in which distances are taken.
        count: Images to choose; all where there are no more.
        seed: Of the groups.

    Returns:
        (row, score), row in 0..U-1.
    """
    weights = (1 - guesses.right) * guesses.match
    rows = weights.argsort(descending=True, stable=True)[:_LOOKED_AT].sort().values
    features = MappedFeatures(as_blocks(unlabelled), projection, projection.width).rows(rows)
    weights = weights[rows].double() + 1e-9  # images that are sure, or foreign, are no reason to fail
    count = min(count, len(rows))
    group, distance = _grouped(features, weights, count, seed)
    mass = torch.zeros(count, dtype=torch.float64).index_add_(0, group, weights) / weights.sum()
    nearest = [int(torch.where(group == one, distance, torch.inf).argmin()) for one in sorted(set(group.tolist()))]
    chosen: dict[int, float] = {}
    for row in nearest:
        first = next((other for other in chosen if _are_alike(features[row], features[other])), row)
        chosen[first] = chosen.get(first, 0.0) + float(mass[group[row]])
    return sorted(((int(rows[row]), score) for row, score in chosen.items()), key=lambda one: -one[1])


def _are_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two projected rows differ by rounding alone, as k-means parts them where images are few."""
    return bool((one - other).norm() <= 1e-5 * one.norm())


def _grouped(features: Tensor, weights: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`[m]` the group of each row, of at most `count`, and its distance to the group's centre."""
    means = KMeans(count, n_init=_STARTS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different images than groups
        means.fit(features.numpy(), sample_weight=weights.numpy())
    group = torch.from_numpy(means.labels_).long()
    centres = torch.from_numpy(means.cluster_centers_).to(features)
    return group, (features - centres[group]).norm(dim=1)
