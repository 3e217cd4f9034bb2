"""Labels guessed for unlabelled images of the target's domain, how far to trust each, and how much each counts.

Three probabilities make a rate: that the guess is right, that the image is of the target's domain at all, and that its
class is as frequent as the guesses say. What is not of the domain, or cannot be told, counts next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from homing.rates.learned.balance import class_sums
from homing.rates.learned.blocks import BLOCK_ROWS, FeatureBlocks, MappedFeatures, as_blocks, check_finite, slices
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.folds import held_out_folds
from homing.rates.learned.likeness import target_likeness
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias
from homing.rates.learned.projection import Projection
from homing.rates.learned.work import ALONE, Work

FOLDS = 5
GUESS_RIDGE = 0.2
TRUST = 4.0
"""Power of the probability that a guess is right: a wrong guess costs more than a right one adds."""
LEAST_TRUST = 0.01
"""Below it an image is left out: it would be drawn once in a hundred epochs of the target."""

LEAST_RIGHT = 0.65
"""Share of guesses, of images of the domain, that is right; where there are fewer, none of them counts."""
MOST_OF_TARGET = 0.5
"""Of what the target's images get, for all guesses together (docs/decisions/unlabelled.md)."""

_FITTED_ROWS = 25_000
_LIKELY_SHARE = 0.95  # of a customer's own images that are of the customer's domain
_EM_STEPS = 100
_TEMPERATURES = torch.logspace(-1.5, 1.0, 51)


@dataclass(frozen=True)
class Guesses:
    """What is thought of U unlabelled images.

    Attributes:
        labels: int64 `[U]`, the class that is guessed.
        right: float32 `[U]` in 0..1, probability that the guess is right.
        match: float32 `[U]` in 0..1, probability that the image is of the target's domain.
        rates: float32 `[U]`, how much each counts beside source rows of rate 1 and target images of the target's
            weight, which none of them exceeds.
    """

    labels: Tensor
    right: Tensor
    match: Tensor
    rates: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors by name, for safetensors; `Guesses(**tensors)` is the opposite."""
        return {"labels": self.labels, "right": self.right, "match": self.match, "rates": self.rates}


def guess_labels(
    evidence: Evidence,
    rates: Tensor,
    target_weight: float,
    unlabelled: Tensor | FeatureBlocks,
    *,
    projection: Projection,
    seed: int = 0,
    work: Work = ALONE,
) -> Guesses:
    """Guess by a probe of source and target as they are trained on.

    A logistic regression with the learned rates leans to the target; how sure it may be is found on images of the
    target that it has not seen. An image is of the target's domain as far as two classifiers find it so: one of target
    against unlabelled that has not seen it, and one of target against source (`likeness.py`). Foreign images that are
    like the source are told by the second, others by the first.

    Args:
        evidence: Features and labels of source and target.
        rates: `[N]` of the source, as learned.
        target_weight: How often each target image counts.
        unlabelled: `[U, D]` features of the same backbone, in memory or in blocks.
        projection: To the components that probes work on, of the source.
        seed: Of the folds.
        work: Told of, and where it runs.

    Raises:
        DataError: A feature is not finite.
    """
    reduced = evidence.projected_by(projection)
    images = MappedFeatures(as_blocks(unlabelled), projection, projection.width)
    rows, drawn = reduced.drawn(_FITTED_ROWS, weights=rates.clamp(min=1e-3))
    probe, temperature = _calibrated_probe(drawn, rates[rows], target_weight, seed, work.part(0, 0.4))
    likeness = target_likeness(drawn, seed, work.part(0.4, 0.7)).probe
    likeness = torch.zeros(len(probe)) if likeness is None else likeness
    found = _of_blocks(images, lambda features: _answers(features, temperature * probe, likeness))
    labels, right = found[0].long(), found[1]
    domain = Evidence(images, labels, reduced.target_features, reduced.target_labels, num_classes=evidence.num_classes)
    match = target_likeness(domain, seed, work.part(0.7, 1)).match * _share_and_match(found[2])
    rates = guess_rates(
        labels,
        right,
        match,
        target_weight=target_weight,
        source_labels=evidence.source_labels,
        target_labels=evidence.target_labels,
        num_classes=evidence.num_classes,
    )
    return Guesses(labels, right, match, rates)


def guess_rates(
    labels: Tensor,
    right: Tensor,
    match: Tensor,
    *,
    target_weight: float,
    source_labels: Tensor,
    target_labels: Tensor,
    num_classes: int,
) -> Tensor:
    """`[U]` how much each guess counts: `target_weight * P(right) ** TRUST * P(match)` at most.

    A class gets no more than if all images that are to be expected of it counted in full, by its share of the target or
    of the source, whichever is larger; and all guesses together get no more than `MOST_OF_TARGET` of what the target
    gets, nor more than the source: they take the place of images whose labels are known. Where less than `LEAST_RIGHT`
    of them are right, by their own word, none counts.

    Args:
        labels: `[U]` guessed.
        right: `[U]`.
        match: `[U]`.
        target_weight: Of a target image.
        source_labels: `[N]`.
        target_labels: `[n]`.
        num_classes: Length of the class list.
    """
    if float((right * match).sum()) < LEAST_RIGHT * float(match.sum()):
        return torch.zeros_like(right)
    trust = right**TRUST * match
    rates = target_weight * torch.where(trust < LEAST_TRUST, 0.0, trust)
    source, target = (torch.bincount(own, minlength=num_classes) / len(own) for own in (source_labels, target_labels))
    allowed = torch.maximum(source, target) * float(match.sum()) * target_weight
    given = class_sums(rates, labels, num_classes)
    rates = rates * (allowed / given.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1).float()[labels]
    total = float(rates.sum(dtype=torch.float64))
    most = min(len(source_labels), MOST_OF_TARGET * target_weight * len(target_labels))
    return rates * min(1.0, most / total) if total else rates


def _calibrated_probe(
    drawn: Evidence, rates: Tensor, target_weight: float, seed: int, work: Work
) -> tuple[Tensor, float]:
    """`[D + 1, C]` log-odds of the classes, and the factor on them at which held-out target images are likeliest."""
    mass = rates if drawn.masses is None else rates * drawn.masses
    num_target, folds = drawn.num_target, min(FOLDS, drawn.num_target)
    held_out = list(held_out_folds(drawn.target_labels, folds, seed)) if folds > 1 and target_weight else []
    target = torch.full((1 + len(held_out), num_target), float(target_weight))
    for weights, fold in zip(target[1:], held_out, strict=True):
        weights[fold] = 0.0
    probes = fit_probes(
        with_bias(torch.cat([drawn.held, drawn.target_features])),
        torch.cat([drawn.source_labels, drawn.target_labels]),
        torch.cat([mass.expand(len(target), -1), target], dim=1),
        drawn.num_classes,
        ridge=GUESS_RIDGE,
        work=work,
    )
    scores = torch.zeros(num_target, drawn.num_classes)
    asked = torch.zeros(num_target, dtype=torch.bool)
    for probe, weights, fold in zip(probes[1:], target[1:], held_out, strict=True):
        scores[fold] = log_probabilities(with_bias(drawn.target_features[fold]), probe)
        asked[fold] = drawn.known(drawn.target_labels[fold], weights > 0)
    return probes[0], _temperature(scores[asked], drawn.target_labels[asked]) if asked.any() else 1.0


def _temperature(scores: Tensor, labels: Tensor) -> float:
    """The factor on scores `[n, C]` that makes the labels `[n]` likeliest, as if one more image were wrong.

    A few dozen images that are all right would ask for certainty; targets are smoothed as by Platt (1999).
    """
    num_images, num_classes = scores.shape
    wrong = 1 / (num_images + 2)
    log_probs = (scores * _TEMPERATURES[:, None, None]).log_softmax(dim=2)
    own = log_probs.gather(2, labels.expand(len(_TEMPERATURES), -1)[..., None]).mean(dim=(1, 2))
    others = (log_probs.mean(dim=(1, 2)) * num_classes - own) / max(1, num_classes - 1)
    return float(_TEMPERATURES[((1 - wrong) * own + wrong * others).argmax()])


def _answers(features: Tensor, probe: Tensor, likeness: Tensor) -> Tensor:
    """`[3, m]` the likeliest class, its probability, and the log density ratio of target to source."""
    inputs = with_bias(features)
    found = log_probabilities(inputs, probe).max(dim=1)
    return torch.stack([found.indices.float(), found.values.exp(), inputs @ likeness])


def _of_blocks(images: FeatureBlocks, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """`[3, U]` of all images, block by block."""
    found = torch.empty(3, len(images))
    for part in slices(len(images), BLOCK_ROWS):
        features = images.rows(part)
        check_finite(features, "unlabelled", part.start)
        found[:, part] = answer(features)
    return found


def _share_and_match(log_ratio: Tensor) -> Tensor:
    """`[U]` probability that each is of the target's domain and not of the source's, given log density ratios.

    The share of the former is the likeliest one (EM, Saerens et al. 2002). Where source and target are alike, ratios
    say nothing, and the share that it began with stays.
    """
    share = _LIKELY_SHARE
    for _ in range(_EM_STEPS):
        match = torch.sigmoid(log_ratio + math.log(share / (1 - share)))
        share = min(max(float(match.mean()), 1e-4), 1 - 1e-4)
    return match
