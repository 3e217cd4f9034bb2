"""What a model is worth on held-out images: its figures with their intervals, out of logits and labels alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from homing.errors import RecipeError
from homing.evaluation.multi_label import predictions_of, set_calibration_error
from homing.evaluation.resampling import all_once, ends_of, resamples
from homing.measures import why_not
from homing.pools.problem import Problem

_COUNTED = ("accuracy", "top5_accuracy")  # shares of independent images: intervals by formula


def metrics(logits: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """All figures of one model on one set of images.

    Args:
        logits: float [M, C].
        labels: int64 [M], or bool [M, C] where an image may be of several classes.
        seed: Of the bootstrap.

    Returns:
        accuracy; balanced_accuracy (mean recall over the classes that occur among the labels), macro_f1 (over those
        that occur among labels or answers), nll (nats), ece (15 bins), num_test; top5_accuracy for more than 10
        classes; auroc (of the second class) for two, None where one of them does not occur. Each but ece with
        `…_interval` of 95 %: Wilson for accuracies, else the bootstrap over images. All shares lie in 0 to 1.
        Where an image may be of several classes the figures of `SetPredictions`; ece is of single answers then.
    """
    predictions, num_test = predictions_of(logits[None], labels), len(labels)
    values = {name: float(value) for name, value in predictions.figures(all_once(num_test)).items()}
    drawn = [predictions.figures(images) for images, _ in resamples(num_test, 1, seed)]
    found: dict[str, Any] = {
        "num_test": num_test,
        "ece": (
            set_calibration_error(logits, labels)
            if labels.ndim == 2
            else expected_calibration_error(logits.double().softmax(1), labels)
        ),
    }
    for name, value in values.items():
        if math.isnan(value):
            found |= {name: None, f"{name}_interval": None}
            continue
        ends = ends_of(torch.cat([block[name][:, 0] for block in drawn]))
        found |= {name: value, f"{name}_interval": list(wilson_interval(value, num_test) if name in _COUNTED else ends)}
    return found


def check_metric(metric: str, problem: Problem) -> None:
    """A run is judged by a figure that its labelled images of the target's domain have.

    Raises:
        RecipeError: They have not.
    """
    if not problem.is_measured or problem.label_sets is not None:  # judged by mean average precision
        return
    reason = why_not(metric, len(problem.classes))
    if reason is None and metric == "auroc":
        role, rows = ("target", problem.target_rows) if problem.test is None else ("test", problem.test_rows)
        if absent := set(range(2)) - set(problem.labels[rows].tolist()):
            missing = problem.classes[min(absent)]
            reason = f"evaluation.metric: auroc needs images of both classes, and data.{role} has none of {missing!r}"
    if reason is not None:
        raise RecipeError(f"{reason}; give another, such as balanced_accuracy")


def wilson_interval(share: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share observed in `count` trials (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al. 2017). probabilities: [M, C]."""
    confidences, predictions = probabilities.max(1)
    bins = (confidences * num_bins).long().clamp(max=num_bins - 1)
    zeros = torch.zeros(num_bins, dtype=torch.float64)
    sums = zeros.index_add(0, bins, confidences.double())
    hits = zeros.index_add(0, bins, (predictions == labels).double())
    return float((sums - hits).abs().sum() / len(labels))


def confusion(logits: Tensor, labels: Tensor, num_classes: int) -> list[list[int]]:
    """Counts, rows true class, columns predicted class."""
    cells = labels * num_classes + logits.argmax(1)
    counts: list[list[int]] = torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).tolist()
    return counts
