"""Figures of models on images that may be of several classes: average precision and F1, also under draws of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from homing.evaluation.resampling import FEW, Predictions, all_once, ends_of, resamples
from homing.rates.learned.one_vs_rest import set_losses


def predictions_of(logits: Tensor, labels: Tensor) -> Predictions | SetPredictions:
    """What K models say: logits `[K, M, C]`, labels int64 `[M]`, or bool `[M, C]` where images may be of several."""
    return Predictions.of(logits, labels) if labels.ndim == 1 else SetPredictions.of(logits, labels)


@dataclass(frozen=True)
class SetPredictions:
    """What K models (seeds) say of M images, as far as figures are made of it.

    Attributes:
        each: One of each model.
    """

    each: tuple[_Answers, ...]

    @classmethod
    def of(cls, logits: Tensor, sets: Tensor) -> SetPredictions:
        """From logits `[K, M, C]` and sets bool `[M, C]`, the classes of each image."""
        return cls(tuple(_Answers.of(one, sets) for one in logits))

    def figures(self, images: Tensor) -> dict[str, Tensor]:
        """Figures under counts of images `[B, M]`: `[B, K]` each, NaN in draws where a figure is not defined.

        mean_average_precision (over classes that some image has), macro_f1 (over classes that occur among labels or
        answers) and micro_f1 at a probability of .5, accuracy (share of images whose whole set is right), nll (nats an
        image, added up over classes).
        """
        found = [one.figures(images) for one in self.each]
        return {name: torch.stack([one[name] for one in found], dim=1) for name in found[0]}


def per_label(
    logits: Tensor, sets: Tensor, classes: Sequence[str], *, against: Tensor | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Average precision and F1 of each class that occurs.

    Args:
        logits: float [M, C].
        sets: bool [M, C].
        classes: Names of the C classes.
        against: Logits of another model on the same images.
        seed: Of the bootstrap.

    Returns:
        Class to average_precision, f1, num_test (images that have it), is_small (fewer than 10), and where there is
        another model `gain`: average precision minus that model's, with the paired bootstrap interval of 95 %.
    """
    model, once = _Answers.of(logits, sets), all_once(len(sets))
    precision, f1 = model.average_precisions(once)[0], model.f1(once)[0].tolist()
    counts = sets.sum(dim=0).tolist()
    found: dict[str, dict[str, Any]] = {
        name: {
            "average_precision": float(precision[index]),
            "f1": f1[index],
            "num_test": counts[index],
            "is_small": counts[index] < FEW,
        }
        for index, name in enumerate(classes)
        if counts[index]
    }
    if against is None:
        return found
    other = _Answers.of(against, sets)
    means = precision - other.average_precisions(once)[0]
    drawn = [
        model.average_precisions(images) - other.average_precisions(images)
        for images, _ in resamples(len(sets), 1, seed)
    ]
    for index, differences in enumerate(torch.cat(drawn).T):
        if classes[index] in found:
            low, high = ends_of(differences)
            found[classes[index]]["gain"] = {"mean": float(means[index]), "low": low, "high": high}
    return found


@dataclass(frozen=True)
class _Answers:
    """What a model says of M images.

    Attributes:
        sets: bool `[M, C]`, what is right.
        chosen: bool `[M, C]`, probability above .5.
        order: `[C, M]` images by their logit of each class, the highest first.
        ends: `[C, M]` place in that order of the last image of the same logit.
        losses: `[M]` nats.
    """

    sets: Tensor
    chosen: Tensor
    order: Tensor
    ends: Tensor
    losses: Tensor

    @classmethod
    def of(cls, logits: Tensor, sets: Tensor) -> _Answers:
        sets = sets.bool()
        found, order = logits.double().T.contiguous().sort(dim=1, descending=True, stable=True)
        ends = torch.searchsorted(-found, -found, right=True) - 1
        return cls(sets, logits > 0, order, ends, set_losses(logits.double(), sets))

    def figures(self, images: Tensor) -> dict[str, Tensor]:
        """Figures under counts of images `[B, M]`: `[B]` each."""
        total = images.sum(dim=1)
        exact = (self.chosen == self.sets).all(dim=1).to(images)
        right, either = self._hits(images)
        f1 = 2 * right / either.clamp(min=1)
        return {
            "mean_average_precision": self.average_precisions(images).nanmean(dim=1),
            "macro_f1": f1.sum(dim=1) / (either > 0).sum(dim=1),
            "micro_f1": 2 * right.sum(dim=1) / either.sum(dim=1),
            "accuracy": images @ exact / total,
            "nll": images @ self.losses / total,
        }

    def f1(self, images: Tensor) -> Tensor:
        """`[B, C]`."""
        right, either = self._hits(images)
        return 2 * right / either.clamp(min=1)

    def _hits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, C]` images that are rightly of a class, and those that are plus those that are said to be."""
        right = images @ (self.chosen & self.sets).to(images)
        return right, images @ (self.chosen.to(images) + self.sets.to(images))

    def average_precisions(self, images: Tensor) -> Tensor:
        """`[B, C]` area under precision over recall, images of the same logit counting at once; NaN without any."""
        images, found = images.float(), []  # counts: exact, at half the time
        for own, order, ends in zip(self.sets.T, self.order, self.ends, strict=True):
            places = own[order].nonzero().flatten()
            last = ends[places]
            last_own = torch.searchsorted(places, last, right=True) - 1
            hits = images[:, order[places]]
            precision = hits.cumsum(1)[:, last_own] / images[:, order].cumsum(1)[:, last].clamp(min=1)
            found.append((hits * precision).sum(dim=1).double() / hits.sum(dim=1).double())
        return torch.stack(found, dim=1)


def set_calibration_error(logits: Tensor, sets: Tensor, num_bins: int = 15) -> float:
    """Mean gap between the probability of a single label and how often it is there, over equal-width bins."""
    shares, there = logits.double().sigmoid().flatten(), sets.double().flatten()
    bins = (shares * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add(0, bins, shares - there)
    return float(gaps.abs().sum() / len(shares))
