"""Class by class: how many images of each are recognised, and how many more than another model recognises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homing.evaluation.multi_label import per_label
from homing.evaluation.paired import Interval
from homing.evaluation.resampling import DRAWS, ENDS, FEW


def per_class(
    logits: Tensor, labels: Tensor, classes: Sequence[str], *, against: Tensor | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Accuracy (recall) of each class that occurs.

    Args:
        logits: float [M, C].
        labels: int64 [M], or bool [M, C] where an image may be of several classes; then see `per_label`.
        classes: Names of the C classes.
        against: Logits of another model on the same images.
        seed: Of the bootstrap.

    Returns:
        Class to accuracy, num_test, is_small (fewer than 10 images), and where there is another model `gain`: accuracy
        minus that model's, with the paired bootstrap interval of 95 %.
    """
    if labels.ndim == 2:
        return per_label(logits, labels, classes, against=against, seed=seed)
    hits, generator = (logits.argmax(1) == labels).long(), np.random.default_rng(seed)
    differences = None if against is None else hits - (against.argmax(1) == labels).long()
    found: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(classes):
        own = labels == index
        num_test = int(own.sum())
        if not num_test:
            continue
        found[name] = {
            "accuracy": float(hits[own].double().mean()),
            "num_test": num_test,
            "is_small": num_test < FEW,
        }
        if differences is not None:
            found[name]["gain"] = _gain(differences[own], generator)
    return found


def _gain(differences: Tensor, generator: np.random.Generator) -> Interval:
    """The mean of differences in {-1, 0, 1}, `[M]`, and its interval: draws of three counts are the whole bootstrap."""
    count = len(differences)
    shares = torch.bincount(differences + 1, minlength=3).double() / count
    drawn = generator.multinomial(count, shares.numpy(), size=DRAWS)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / count, ENDS).tolist()
    return {"mean": float(differences.double().mean()), "low": low, "high": high}


def absent_classes(labels: Tensor, classes: Sequence[str]) -> list[str]:
    """Names of the classes that no image has; labels as for `per_class`."""
    counts = torch.bincount(labels, minlength=len(classes)) if labels.ndim == 1 else labels.sum(dim=0)
    return [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
