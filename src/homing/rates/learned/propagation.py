"""Label propagation: what is thought of an image, put right by what is thought of those that look like it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from homing.rates.learned.blocks import slices

NEIGHBOURS = 10
SPREAD = 0.7
"""How much neighbours say of what is thought of an image in the end; the rest is what was thought of it alone."""

_SHARPNESS = 10.0  # a neighbour counts exp(this * cosine)
_ROUNDS = 30
_TOGETHER = 2_048  # images that may be neighbours of one another: the time taken grows with this times their number


def propagate(probabilities: Tensor, features: Tensor, target_features: Tensor, target_labels: Tensor) -> Tensor:
    """Spread probabilities and known labels over the nearest neighbours of each image (Zhou et al. 2004).

    Args:
        probabilities: `[U, C]` of each class, as a network thinks.
        features: `[U, D]` of the same network.
        target_features: `[n, D]`, of images whose labels are known.
        target_labels: `[n]` int64.

    Returns:
        `[U, C]`, each row with sum 1.
    """
    known = one_hot(target_labels, probabilities.shape[1]).to(probabilities)
    found = torch.empty_like(probabilities)
    for part in slices(len(features), _TOGETHER):
        graph = _graph(normalize(torch.cat([target_features, features[part]]), dim=1))
        given = torch.cat([known, probabilities[part]])
        spread = given
        for _ in range(_ROUNDS):
            spread = SPREAD * graph @ spread + (1 - SPREAD) * given
        found[part] = spread[len(known) :]
    return found / found.sum(dim=1, keepdim=True)


def _graph(directions: Tensor) -> Tensor:
    """`[m, m]` how much each image says of each other; symmetric, none of its eigenvalues above 1.

    Args:
        directions: `[m, D]` of length 1.
    """
    cosines = (directions @ directions.T).fill_diagonal_(-torch.inf)
    nearest = cosines.topk(min(NEIGHBOURS, len(cosines) - 1), dim=1)
    weights = torch.zeros_like(cosines).scatter_(1, nearest.indices, (_SHARPNESS * nearest.values).exp())
    weights += weights.T.clone()
    scale = weights.sum(dim=1).clamp(min=torch.finfo(weights.dtype).tiny).rsqrt()
    return scale[:, None] * weights * scale
