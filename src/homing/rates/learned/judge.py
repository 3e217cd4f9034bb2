"""The held-out judge: which setting would serve target images that it has not seen.

The judge must not be bribed: whatever was fitted with a fold's target images may not be used to score that fold.
So every fold describes the source anew from the target images that are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from homing.rates.learned.evidence import Evidence
from homing.rates.learned.folds import held_out_folds
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias

FOLDS = 5
REPEATS = 2
JUDGE_RIDGE = 0.05
_TEMPERATURES = torch.logspace(-1.5, 1.0, 26)

RatesFrom = Callable[[Evidence], Tensor]
"""Rates `[S, N]` of every candidate, from the evidence that a fold may see."""


@dataclass(frozen=True)
class Verdict:
    """Held-out losses of every candidate and the one chosen.

    Attributes:
        losses: `[S, n]` temperature-scaled held-out cross entropy of each target image under each candidate, nats.
        chosen: Index of the chosen candidate.
        log_prior: `[S]` in nats, up to a constant.
        held_out: `[n, C]` log-probabilities of each target image, out of fold, under the chosen candidate.
    """

    losses: Tensor
    chosen: int
    log_prior: Tensor
    held_out: Tensor

    @property
    def posterior(self) -> Tensor:
        """`[S]` probability of each candidate, held-out losses taken as log-likelihoods; the chosen one has most."""
        return (self.log_prior.double() - self.losses.double().sum(dim=1)).softmax(dim=0)

    @property
    def paired_errors(self) -> Tensor:
        """`[S]` standard error of each candidate's mean difference to the best one, over images."""
        return _paired_errors(self.losses)


def judge(
    evidence: Evidence,
    target_weights: Tensor,
    rates_from: RatesFrom,
    *,
    log_prior: Tensor | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Verdict:
    """Score every candidate on held-out folds of the target and choose one.

    Args:
        evidence: Both pools.
        target_weights: `[S]` how often each target image counts under each candidate.
        rates_from: Computes the candidates' rates, once in every fold.
        log_prior: `[S]`, see `choose`; all alike where not given.
        folds: Parts that the target is split into, `REPEATS` times over.
        seed: Seed of the splits.
        progress: Called with the share done, 0..1.

    Raises:
        DataError: The target has fewer images than folds.
    """
    scores = torch.zeros(REPEATS, len(target_weights), evidence.num_target, evidence.num_classes)
    for index, (repeat, seen) in enumerate(_splits(evidence.target_labels, folds, seed)):
        part = evidence.with_target(seen)
        probes = fit_candidates(part, target_weights, rates_from(part))
        scores[repeat][:, ~seen] = log_probabilities(with_bias(evidence.target_features[~seen]), probes)
        if progress is not None:
            progress((index + 1) / (folds * REPEATS))
    losses = _temperature_scaled_losses(scores, evidence.target_labels)
    prior = torch.zeros(len(losses)) if log_prior is None else log_prior
    chosen = choose(losses, prior)
    return Verdict(losses, chosen, prior, scores[:, chosen].exp().mean(dim=0).log())


def fit_candidates(evidence: Evidence, target_weights: Tensor, rates: Tensor) -> Tensor:
    """`[S, D + 1, C]` probes trained on both pools as each candidate weighs them.

    Args:
        evidence: Both pools.
        target_weights: `[S]`.
        rates: `[S, N]`.
    """
    features = with_bias(torch.cat([evidence.source_features, evidence.target_features]))
    labels = torch.cat([evidence.source_labels, evidence.target_labels])
    weights = torch.cat([rates, target_weights[:, None].expand(-1, evidence.num_target)], dim=1)
    middle = weights.mean(dim=0, keepdim=True)
    start = fit_probes(features, labels, middle, evidence.num_classes, ridge=JUDGE_RIDGE)
    return fit_probes(features, labels, weights, evidence.num_classes, ridge=JUDGE_RIDGE, start=start)


def choose(losses: Tensor, log_prior: Tensor) -> int:
    """The candidate of the highest posterior: held-out log-likelihood of all images plus the prior's logarithm.

    A few dozen images hardly tell neighbouring candidates apart, and then the prior decides; hundreds overrule it.

    Args:
        losses: `[S, n]` in nats.
        log_prior: `[S]` in nats, up to a constant.
    """
    return int((log_prior - losses.sum(dim=1)).argmax())


def _paired_errors(losses: Tensor) -> Tensor:
    differences = losses - losses[losses.mean(dim=1).argmin()]
    errors: Tensor = differences.std(dim=1, correction=0) / math.sqrt(max(1, losses.shape[1] - 1))
    return errors


def _splits(labels: Tensor, folds: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """`(repeat, seen)` for every fold of every repeat, seen being `[n]` bool."""
    for repeat in range(REPEATS):
        for held_out in held_out_folds(labels, folds, seed + repeat):
            seen = torch.ones(len(labels), dtype=torch.bool)
            seen[held_out] = False
            yield repeat, seen


def _temperature_scaled_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Losses at each setting's own best temperature, so that confidence alone wins nothing.

    Args:
        scores: `[R, S, n, C]` held-out log-probabilities.
        labels: `[n]`.
    """
    own = labels[None, None, :, None].expand(*scores.shape[:3], 1)
    per_temperature = []
    for temperature in _TEMPERATURES:
        log_probs = (scores * temperature).log_softmax(dim=-1)
        per_temperature.append(-log_probs.gather(3, own).squeeze(3).mean(dim=0))
    losses_TSn = torch.stack(per_temperature)
    best = losses_TSn.mean(dim=2).argmin(dim=0)
    own_best = best[None, :, None].expand(1, -1, losses_TSn.shape[2])
    return losses_TSn.gather(0, own_best).squeeze(0)
