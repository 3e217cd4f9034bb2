"""Figures of models on images that may be of several classes: average precision, F1, and intervals over images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from homing.rates.learned.one_vs_rest import set_losses

DRAWS = 1000
_CELLS = 4_000_000  # floats at a time: bounds memory
FIGURES = ("mean_average_precision", "macro_f1", "micro_f1", "accuracy", "nll")
_ENDS = torch.tensor([0.025, 0.975], dtype=torch.float64)

Interval = dict[str, float]


def set_metrics(logits: Tensor, sets: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """All figures of one model on one set of images.

    Args:
        logits: float [M, C].
        sets: bool [M, C], the classes of each image.
        seed: Of the bootstrap.

    Returns:
        mean_average_precision (over classes that some image has), macro_f1 (over classes that occur among labels or
        answers) and micro_f1 at a probability of .5, accuracy (share of images whose whole set is right), nll (nats an
        image, added up over classes), each with `..._interval`, 95 %, by the bootstrap over images; ece (of single
        answers, 15 bins), num_test.
    """
    model = _Answers.of(logits, sets)
    values = {name: float(value) for name, value in model.figures(torch.ones(1, len(sets))).items()}
    drawn = [model.figures(images) for images in _draws(model, seed)]
    ends = {name: torch.cat([block[name] for block in drawn]).nanquantile(_ENDS).tolist() for name in FIGURES}
    intervals = {f"{name}_interval": ends[name] for name in FIGURES}
    return {**values, **intervals, "ece": _calibration_error(logits, sets), "num_test": len(sets)}


def paired_set_intervals(ours: Tensor, theirs: Tensor, sets: Tensor, *, seed: int = 0) -> dict[str, Interval]:
    """Figures of ours minus theirs, with paired bootstrap intervals of 95 % over images and seeds.

    Args:
        ours: Logits `[K, M, C]` of K seeds.
        theirs: The same of the other model.
        sets: bool `[M, C]`.
        seed: Of the bootstrap.
    """
    pairs = [(_Answers.of(mine, sets), _Answers.of(other, sets)) for mine, other in zip(ours, theirs, strict=True)]
    once = torch.ones(1, len(sets))
    means = _mean_differences(pairs, once, torch.full((1, len(pairs)), 1 / len(pairs)))
    generator, drawn = torch.Generator().manual_seed(seed), []
    for images in _draws(pairs[0][0], seed):
        seeds = torch.randint(len(pairs), (len(images), len(pairs)), generator=generator)
        shares = torch.nn.functional.one_hot(seeds, len(pairs)).double().mean(dim=1)
        drawn.append(_mean_differences(pairs, images, shares))
    found = {}
    for name in FIGURES:
        low, high = torch.cat([block[name] for block in drawn]).nanquantile(_ENDS).tolist()
        found[name] = {"mean": float(means[name]), "low": low, "high": high}
    return found


def per_label(logits: Tensor, sets: Tensor, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Average precision, F1, and number of images of each class that occurs; num_test: the images that have it."""
    model, once = _Answers.of(logits, sets), torch.ones(1, len(sets))
    precision, f1 = model.average_precisions(once)[0].tolist(), model.f1(once)[0].tolist()
    counts = sets.sum(dim=0).tolist()
    return {
        name: {"average_precision": precision[index], "f1": f1[index], "num_test": counts[index]}
        for index, name in enumerate(classes)
        if counts[index]
    }


def _mean_differences(pairs: list[tuple[_Answers, _Answers]], images: Tensor, seeds: Tensor) -> dict[str, Tensor]:
    """`[B]` of each figure; images `[B, M]` as counts, seeds `[B, K]` as shares."""
    found = [(ours.figures(images), theirs.figures(images)) for ours, theirs in pairs]
    return {
        name: sum(
            (seeds[:, index] * (mine[name] - other[name]) for index, (mine, other) in enumerate(found)),
            torch.zeros(len(images), dtype=torch.float64),
        )
        for name in FIGURES
    }


def _draws(model: _Answers, seed: int) -> Iterator[Tensor]:
    """How often each image is drawn, `[B, M]`, block by block."""
    generator, count = torch.Generator().manual_seed(seed), len(model.sets)
    size = max(1, min(DRAWS, _CELLS // count))
    for begin in range(0, DRAWS, size):
        drawn = torch.randint(count, (min(size, DRAWS - begin), count), generator=generator)
        counts = torch.zeros(len(drawn), count)
        yield counts.scatter_add_(1, drawn, torch.ones_like(counts))


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
        total = images.sum(dim=1).double()
        exact = (self.chosen == self.sets).all(dim=1).to(images)
        right, either = self._hits(images)
        f1 = 2 * right / either.clamp(min=1)
        return {
            "mean_average_precision": self.average_precisions(images).nanmean(dim=1),
            "macro_f1": f1.sum(dim=1) / (either > 0).sum(dim=1),
            "micro_f1": 2 * right.sum(dim=1) / either.sum(dim=1),
            "accuracy": (images @ exact).double() / total,
            "nll": (images.double() @ self.losses) / total,
        }

    def f1(self, images: Tensor) -> Tensor:
        """`[B, C]`."""
        right, either = self._hits(images)
        return 2 * right / either.clamp(min=1)

    def _hits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, C]` images that are rightly of a class, and those that are plus those that are said to be."""
        right = (images @ (self.chosen & self.sets).to(images)).double()
        return right, (images @ (self.chosen.to(images) + self.sets.to(images))).double()

    def average_precisions(self, images: Tensor) -> Tensor:
        """`[B, C]` area under precision over recall, images of the same logit counting at once; NaN without any."""
        found = []
        for own, order, ends in zip(self.sets.T, self.order, self.ends, strict=True):
            weights = images[:, order]
            hits = weights * own[order].to(images)
            precision = hits.cumsum(1)[:, ends] / weights.cumsum(1)[:, ends].clamp(min=1)
            found.append((hits * precision).sum(dim=1).double() / hits.sum(dim=1).double())
        return torch.stack(found, dim=1)


def _calibration_error(logits: Tensor, sets: Tensor, num_bins: int = 15) -> float:
    """Mean gap between the probability of a single label and how often it is there, over equal-width bins."""
    shares, there = logits.double().sigmoid().flatten(), sets.double().flatten()
    bins = (shares * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add(0, bins, shares - there)
    return float(gaps.abs().sum() / len(shares))
