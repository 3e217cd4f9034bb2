"""What a model is worth on held-out images: accuracy with its interval, macro F1, NLL, calibration error."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from homing.evaluation.multi_label import per_label, set_metrics


def metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """All figures of one model on one set of images.

    Args:
        logits: float [M, C].
        labels: int64 [M], or bool [M, C] where an image may be of several classes (see `set_metrics`).

    Returns:
        accuracy, macro_f1 (over classes that occur), nll (nats), ece (15 bins), num_test, accuracy_interval (Wilson,
        95 %). All shares lie in 0 to 1.
    """
    if labels.ndim == 2:
        return set_metrics(logits, labels)
    logits = logits.double()
    predictions = logits.argmax(1)
    accuracy = float((predictions == labels).double().mean())
    return {
        "accuracy": accuracy,
        "macro_f1": macro_f1(predictions, labels),
        "nll": float(functional.cross_entropy(logits, labels)),
        "ece": expected_calibration_error(logits.softmax(1), labels),
        "num_test": len(labels),
        "accuracy_interval": list(wilson_interval(accuracy, len(labels))),
    }


def wilson_interval(share: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share observed in `count` trials (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def macro_f1(predictions: Tensor, labels: Tensor) -> float:
    """F1 averaged over the classes that occur among labels or predictions; int64 [M] each."""
    scores = []
    for index in sorted({*predictions.tolist(), *labels.tolist()}):
        hits = float(((predictions == index) & (labels == index)).sum())
        scores.append(2 * hits / float((predictions == index).sum() + (labels == index).sum()))
    return sum(scores) / len(scores)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al. 2017). probabilities: [M, C]."""
    confidences, predictions = probabilities.max(1)
    bins = (confidences * num_bins).long().clamp(max=num_bins - 1)
    zeros = torch.zeros(num_bins, dtype=torch.float64)
    sums = zeros.index_add(0, bins, confidences.double())
    hits = zeros.index_add(0, bins, (predictions == labels).double())
    return float((sums - hits).abs().sum() / len(labels))


def per_class(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Accuracy and number of images of each class that occurs; labels as for `metrics`, then see `per_label`."""
    if labels.ndim == 2:
        return per_label(logits, labels, classes)
    correct = logits.argmax(1) == labels
    return {
        name: {"accuracy": float(correct[labels == index].double().mean()), "num_test": int((labels == index).sum())}
        for index, name in enumerate(classes)
        if bool((labels == index).any())
    }


def confusion(logits: Tensor, labels: Tensor, num_classes: int) -> list[list[int]] | None:
    """Counts, rows true class, columns predicted class; None where an image may be of several."""
    if labels.ndim == 2:
        return None
    cells = labels * num_classes + logits.argmax(1)
    counts: list[list[int]] = torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).tolist()
    return counts
