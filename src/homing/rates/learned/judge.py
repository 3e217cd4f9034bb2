"""The held-out judge: which setting would serve target images that it has not seen.

The judge must not be bribed: whatever was fitted with a fold's target images may not be used to score that fold.
So every fold describes the source anew from the target images that are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from homing.rates.learned.evidence import Evidence
from homing.rates.learned.folds import held_out_folds
from homing.rates.learned.groups import Group, whole
from homing.rates.learned.labelled import Labelled, ManyLabels, OneLabel
from homing.rates.learned.one_vs_rest import set_losses
from homing.rates.learned.probe import log_probabilities, with_bias
from homing.rates.learned.together import added, place_of
from homing.rates.learned.work import ALONE, Work

FOLDS = 5
REPEATS = 2
JUDGE_RIDGE, RIDGE_CLASSES, LEAST_RIDGE = 0.05, 10, 5e-4
"""Penalty of the judge's probes, with ten classes or fewer. Under it probes of many more are little else than means of
classes, which wrong labels hardly move: it falls as the square of their number (docs/decisions/judge-rule.md)."""
_TEMPERATURES = torch.logspace(-1.5, 1.0, 26)

RatesFrom = Callable[[Evidence], Tensor]
"""Rates `[S, N]` of every candidate, from the evidence that a fold may see."""


@dataclass(frozen=True)
class Verdict:
    """Held-out losses of every candidate and the one chosen.

    Attributes:
        losses: `[S, m]` temperature-scaled held-out cross entropy of each judged target image under each candidate,
            nats.
        chosen: Index of the chosen candidate.
        log_prior: `[S]` in nats, up to a constant.
        held_out: `[n, C]` log-probabilities of each target image, out of fold, under the chosen candidate; alike for
            all classes where the image was not judged, and -inf for classes outside the group that it was judged in.
            Where images may have several labels, the mean logits of those that were judged.
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
    groups: Sequence[Group] = (),
    work: Work = ALONE,
) -> Verdict:
    """Score every candidate on held-out folds of the target and choose one.

    Args:
        evidence: Both pools.
        target_weights: `[S]` how often each target image counts under each candidate.
        rates_from: Computes the candidates' rates, once in every fold.
        log_prior: `[S]`, see `choose`; all alike where not given.
        folds: Parts that the target is split into, `REPEATS` times over, or once where there are several groups.
        seed: Seed of the splits.
        groups: Classes that are judged by themselves, see `groups.py`; none: all classes together.
        work: Told of, and where it runs; processes that work together share the folds.

    Raises:
        DataError: The target has fewer images than folds.
    """
    groups = groups or (whole(evidence),)
    repeats = REPEATS if len(groups) == 1 else 1
    scores = [torch.zeros(repeats, len(target_weights), len(group.targets), len(group.classes)) for group in groups]
    splits = list(_splits(evidence.target_labels, folds, seed, repeats))
    rank, world = place_of(work)
    for index, (repeat, seen) in enumerate(splits):
        if index % world != rank:
            continue
        fold = work.part(index / len(splits), (index + 1) / len(splits))
        part = evidence.with_target(seen)
        rates = rates_from(part)
        for number, (group, found) in enumerate(zip(groups, scores, strict=True)):
            fold.tick(number / len(groups))
            # of a class that nothing is left of no candidate can know anything: such an image is not judged
            held_out = ~seen[group.targets] & evidence.known(evidence.target_labels[group.targets], seen)
            if not seen[group.targets].any() or not held_out.any():
                continue
            probes = fit_candidates(
                *group.of(evidence, seen, rates, target_weights),
                work=fold.part(number / len(groups), (number + 1) / len(groups)),
            )
            features = with_bias(evidence.target_features[group.targets[held_out]])
            is_sets = evidence.target_sets is not None  # their probes' logits are scores of one label each
            found[repeat][:, held_out] = features @ probes if is_sets else log_probabilities(features, probes)
        fold.tick(1.0)
    scores = [added(found, work) for found in scores]
    losses = _temperature_scaled_losses(scores, [group.labels(evidence) for group in groups])
    prior = torch.zeros(len(losses)) if log_prior is None else log_prior
    chosen = choose(losses, prior)
    return Verdict(losses, chosen, prior, _held_out(evidence, groups, scores, chosen))


def _held_out(evidence: Evidence, groups: Sequence[Group], scores: list[Tensor], chosen: int) -> Tensor:
    if evidence.target_sets is not None:
        return scores[0][:, chosen].mean(dim=0)
    held_out = torch.full((evidence.num_target, evidence.num_classes), -math.log(evidence.num_classes))
    for group, found in zip(groups, scores, strict=True):
        own = torch.full((len(group.targets), evidence.num_classes), -torch.inf)
        own[:, group.classes] = found[:, chosen].exp().mean(dim=0).log()
        held_out[group.targets] = own
    return held_out


def judge_ridge(num_classes: int) -> float:
    """Penalty of the judge's probes."""
    return max(LEAST_RIDGE, JUDGE_RIDGE * min(1.0, RIDGE_CLASSES / num_classes) ** 2)


def fit_candidates(evidence: Evidence, target_weights: Tensor, rates: Tensor, work: Work = ALONE) -> Tensor:
    """`[S, D + 1, C]` probes trained on both pools as each candidate weighs them.

    Args:
        evidence: Both pools.
        target_weights: `[S]`.
        rates: `[S, N]`, which count as often as the rows' masses say.
        work: Told of, and where it runs.
    """
    rates = rates if evidence.masses is None else rates * evidence.masses
    features = with_bias(torch.cat([evidence.held, evidence.target_features]))
    labels = torch.cat([evidence.source_labels, evidence.target_labels])
    weights = torch.cat([rates, target_weights[:, None].expand(-1, evidence.num_target)], dim=1)
    middle = weights.mean(dim=0, keepdim=True)
    labelled: Labelled = OneLabel(labels, evidence.num_classes)
    ridge = judge_ridge(evidence.num_classes)
    if evidence.source_sets is not None and evidence.target_sets is not None:
        labelled, ridge = ManyLabels(torch.cat([evidence.source_sets, evidence.target_sets])), JUDGE_RIDGE
    start = labelled.fit(features, middle, ridge, work=work.part(0, 0.1))
    return labelled.fit(features, weights, ridge, start, work=work.part(0.1, 1))


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


def _splits(labels: Tensor, folds: int, seed: int, repeats: int) -> Iterator[tuple[int, Tensor]]:
    """`(repeat, seen)` for every fold of every repeat, seen being `[n]` bool."""
    for repeat in range(repeats):
        for held_out in held_out_folds(labels, folds, seed + repeat):
            seen = torch.ones(len(labels), dtype=torch.bool)
            seen[held_out] = False
            yield repeat, seen


def _temperature_scaled_losses(scores: list[Tensor], labels: list[Tensor]) -> Tensor:
    """`[S, m]` losses at each setting's own best temperature, so that confidence alone wins nothing.

    Args:
        scores: Of each group, `[R, S, m, C]` held-out log-probabilities.
        labels: Of each group, `[m]`.
    """
    losses_TSm = torch.cat([_losses(*group) for group in zip(scores, labels, strict=True)], dim=2)
    best = losses_TSm.mean(dim=2).argmin(dim=0)
    own_best = best[None, :, None].expand(1, -1, losses_TSm.shape[2])
    return losses_TSm.gather(0, own_best).squeeze(0)


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """`[T, S, m]` at every temperature."""
    if labels.ndim == 2:
        return torch.stack([set_losses(scores * each, labels).mean(dim=0) for each in _TEMPERATURES])
    own = labels[None, None, :, None].expand(*scores.shape[:3], 1)
    per_temperature = []
    for temperature in _TEMPERATURES:
        log_probs = (scores * temperature).log_softmax(dim=-1)
        per_temperature.append(-log_probs.gather(3, own).squeeze(3).mean(dim=0))
    return torch.stack(per_temperature)
