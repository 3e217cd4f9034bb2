"""How sure a model may be: one temperature for its logits, from images that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from homing.evaluation.metrics import expected_calibration_error

_SPREAD = math.log(2)
"""Of the prior on the logarithm of a temperature: a factor of two either way. A few images, all of them answered right,
would otherwise ask for a temperature of 0."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """What logits are divided by so that their probabilities fit (Guo et al. 2017), with a prior around 1.

    Args:
        logits: float [M, C], of images that the model has not seen.
        labels: int64 [M].
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        fit = float(functional.cross_entropy(logits / math.exp(log_temperature), labels, reduction="sum"))
        return fit + (log_temperature / _SPREAD) ** 2 / 2

    bound = 5 * _SPREAD
    return float(math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-5}).x))


def calibration(logits: Tensor, labels: Tensor, folds: Sequence[Tensor] | None) -> dict[str, Any]:
    """The temperature of a model that was judged on held-out folds, and what it is worth.

    Args:
        logits: float [M, C], of each image by a model that has not seen it.
        labels: int64 [M].
        folds: Rows of each fold; None: the images are no folds of the target but a test, which fits nothing.

    Returns:
        temperature (None where there is none) and reason; with folds nll and ece of the probabilities, those of each
        fold at the temperature that all other folds ask for.
    """
    if folds is None:
        reason = (
            "data.test is given, so no image of the target was held out from a model, and the test is not fitted to"
        )
        return {"temperature": None, "reason": reason}
    softened = torch.empty(logits.shape, dtype=torch.float64)
    for rows in folds:
        others = torch.ones(len(labels), dtype=torch.bool)
        others[rows] = False
        softened[rows] = logits[rows].double() / fit_temperature(logits[others], labels[others])
    found = scores_at(softened, labels)
    if found["nll"] >= float(functional.cross_entropy(logits.double(), labels)):
        return {"temperature": None, "reason": "no temperature made the folds' probabilities better", **found}
    return {"temperature": fit_temperature(logits, labels), "reason": None, **found}


def scores_at(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss and calibration error of logits that were divided by a temperature; float64 [M, C], int64 [M]."""
    return {
        "nll": float(functional.cross_entropy(logits, labels)),
        "ece": expected_calibration_error(logits.softmax(1), labels),
    }
