"""How right a model is where it may leave to a person what it is least sure of: accuracy against coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from homing.evaluation.metrics import wilson_interval

COVERAGES = (1.0, 0.9, 0.8, 0.5)
_POINTS = 60  # of the curve, at most


def rejection(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """The accuracy on the images that a model is surest of, by its largest probability.

    Args:
        logits: float [M, C].
        labels: int64 [M].

    Returns:
        aurc: the error among the k surest images, averaged over k = 1..M (Geifman et al. 2019; less is better).
        points: coverage, num_images, accuracy and its interval of 95 % (Wilson) at coverages of 1, 0.9, 0.8 and 0.5.
        curve: [coverage, accuracy] of some 60 places, ascending.
        Of images that it is equally sure of each counts as their mean: any order would do.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    _, group, sizes = np.unique(-confidence.numpy(), return_inverse=True, return_counts=True)  # the surest first
    shares = np.bincount(group, (predicted == labels).numpy()) / sizes
    num_images = len(labels)
    accuracy = np.repeat(shares, sizes).cumsum() / np.arange(1, num_images + 1)

    def point(coverage: float) -> dict[str, Any]:
        kept = max(1, math.ceil(round(coverage * num_images, 9)))
        value = min(1.0, float(accuracy[kept - 1]))
        low, high = wilson_interval(value, kept)
        return {"coverage": coverage, "num_images": kept, "accuracy": value, "accuracy_interval": [low, high]}

    places = np.unique(np.linspace(1, num_images, min(num_images, _POINTS)).round().astype(int))
    return {
        "aurc": float((1 - accuracy).mean()),
        "points": [point(coverage) for coverage in COVERAGES],
        "curve": [[int(kept) / num_images, min(1.0, float(accuracy[kept - 1]))] for kept in places],
    }
