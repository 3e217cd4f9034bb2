"""How much each source row looks like the target, and how probably it is of the target's domain.

A *probability*, and it finds out from the pool itself how many rows it concerns: a pool in which nothing matches has
match probabilities of 0, and rates made from them are uniform by construction, with nothing to be decided.

Fitted with target images, so a judge refits it inside each fold (`judge.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor

from homing.rates.learned.balance import class_sums
from homing.rates.learned.drawing import fitted_rows
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.folds import shuffled_folds
from homing.rates.learned.probe import fit_probes, with_bias
from homing.rates.learned.together import agreed, over_rows
from homing.rates.learned.work import ALONE, Work

CROSS_FITS = 5
LIKENESS_RIDGE = 0.3

_QUANTILES = (0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Likeness:
    """How much each source row looks like the target.

    Attributes:
        log_ratio: `[N]` calibrated log density ratio of target to source.
        match: `[N]` in 0..1, probability that the row is of the target's domain.
        share: Share of the pool that matches, 0..1.
        probe: `[D + 1]` log density ratio of a row that no fit has seen, linear in its features and 1.
    """

    log_ratio: Tensor
    match: Tensor
    share: float
    probe: Tensor | None = None


def target_likeness(evidence: Evidence, seed: int, work: Work = ALONE) -> Likeness:
    """Score every source row by a classifier of target against source that has not seen the row.

    A heavily penalised logistic regression, cross-fitted over both pools: rows that match and lie in the pool are
    labelled "source" to the classifier, and one that had seen them would have learned to deny it. Source classes
    are weighted as the target's are, so that the score tells domains, not classes. It is fitted on rows drawn from a
    large source, and scores all of them. Target images of classes that the source lacks would tell those classes, not
    the domain: they are left out.
    """
    evidence = evidence.within_source_classes()
    num_source, num_target = evidence.num_source, evidence.num_target
    if num_source < 2:
        return Likeness(torch.zeros(num_source), torch.zeros(num_source), 0.0)
    num_fits = max(2, min(CROSS_FITS, num_source, num_target))
    source_fold, target_fold = shuffled_folds(num_source, num_fits, seed), shuffled_folds(num_target, num_fits, seed)
    weights = _class_weights(evidence)
    rows, drawn = evidence.drawn(fitted_rows(2), weights=weights)
    probes = agreed(_fit(drawn, weights[rows], source_fold[rows], target_fold, num_fits, work.part(0, 0.6)), work)
    (source,) = over_rows(
        evidence, lambda which, block: _scores(block, probes, source_fold[which])[None], 1, work.part(0.6, 0.9)
    )
    target = _scores(evidence.target_features, probes, target_fold)
    source, target, mean_probe = _on_one_scale(source, source_fold, target, target_fold, probes, evidence.masses)
    share = _matching_share(source, target, evidence.masses)
    slope, shift = _calibration(source[rows], drawn.masses, target)
    probe = slope * mean_probe
    probe[-1] += shift
    match = _match_probability(source, target, share, evidence.masses)
    return Likeness(slope * source + shift, match, share, probe)


def _fit(
    drawn: Evidence, class_weights: Tensor, source_fold: Tensor, target_fold: Tensor, num_fits: int, work: Work
) -> Tensor:
    """`[F, D + 1]` log-odds of target against source, each fitted without one fold of both."""
    num_source, num_target = drawn.num_source, drawn.num_target
    features = with_bias(torch.cat([drawn.held, drawn.target_features]))
    side = torch.cat([torch.zeros(num_source, dtype=torch.int64), torch.ones(num_target, dtype=torch.int64)])
    mass = class_weights if drawn.masses is None else class_weights * drawn.masses
    weights = torch.cat([mass / drawn.mass, torch.full((num_target,), 1 / num_target)])
    kept = torch.cat([source_fold, target_fold]) != torch.arange(num_fits)[:, None]
    probes = fit_probes(features, side, weights * kept, 2, ridge=LIKENESS_RIDGE, work=work)
    return probes[:, :, 1] - probes[:, :, 0]


def _scores(features: Tensor, probes: Tensor, fold: Tensor) -> Tensor:
    """`[M]` of each row by the probe that has not seen its fold."""
    every = features @ probes[:, :-1].T + probes[:, -1]
    return every.gather(1, fold[:, None].long()).squeeze(1)


def _on_one_scale(
    source: Tensor,
    source_fold: Tensor,
    target: Tensor,
    target_fold: Tensor,
    probes: Tensor,
    masses: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of both pools, and the mean probe, on the scale that unseen source rows have mean 0 and spread 1 on."""
    num_fits = len(probes)
    sizes, sums, squares = (
        class_sums(values, source_fold.long(), num_fits, masses)
        for values in (torch.ones_like(source), source, source.double().square())
    )
    means = sums / sizes.clamp(min=torch.finfo(torch.float32).tiny)
    spreads = (squares / sizes.clamp(min=torch.finfo(torch.float32).tiny) - means.square()).clamp(min=0).sqrt()
    means, spreads = means.float(), spreads.float().clamp(min=1e-6)
    mean_probe = (probes / spreads[:, None]).mean(dim=0)
    mean_probe[-1] -= (means / spreads).mean()
    scaled = [
        (part - means[fold.long()]) / spreads[fold.long()]
        for part, fold in ((source, source_fold), (target, target_fold))
    ]
    return scaled[0], scaled[1], mean_probe


def _class_weights(evidence: Evidence) -> Tensor:
    """Weight of each source row that gives the source the target's class shares; mean 1."""
    ones = torch.ones(evidence.num_source)
    source = class_sums(ones, evidence.source_labels, evidence.num_classes, evidence.masses)
    target = torch.bincount(evidence.target_labels, minlength=evidence.num_classes)
    wanted = (target / evidence.num_target) / (source / evidence.mass)
    found = float((target / evidence.num_target)[source > 0].sum())  # the mean over rows
    return (wanted / found).float()[evidence.source_labels] if found else ones


def _matching_share(source: Tensor, target: Tensor, masses: Tensor | None) -> float:
    """Largest share of the pool that can be of the target's domain (mixture proportion, Blanchard et al. 2010).

    Were a share s of the pool matching, s * q of it would score above the target's upper q-quantile: the pool's
    share up there, divided by q, bounds s for every q. The least of the bounds is taken: rows that merely resemble
    the target crowd at its lower scores, rows of its own domain are found at the higher ones too.
    """
    bounds = []
    for upper, at in zip(_QUANTILES, torch.quantile(target, 1 - torch.tensor(_QUANTILES)), strict=True):
        above = source > at
        share = above.double().mean() if masses is None else masses[above].double().sum() / masses.double().sum()
        bounds.append(float(share) / upper)
    return min(1.0, *bounds)


def _match_probability(source: Tensor, target: Tensor, share: float, masses: Tensor | None) -> Tensor:
    """`share * p_target(score) / p_source(score)`, held to rise with the score (isotonic), in 0..1."""
    order = source.argsort(descending=True, stable=True)
    own = None if masses is None else masses[order].double()
    whole = len(source) if own is None else float(own.sum())
    target_tail = torch.special.ndtr(((target.mean() - source[order]) / _spread(target)).double())
    # Matching rows expected between one source row and the next: a noisy probability of each.
    expected = torch.diff(target_tail, prepend=torch.zeros(1).double()) * share * whole
    if own is not None:
        expected = expected / own
    smooth = isotonic_regression(expected.numpy(), sample_weight=None if own is None else own.numpy(), increasing=False)
    match = torch.empty_like(source)
    match[order] = torch.from_numpy(smooth.copy()).to(source).clamp(0, 1)
    return match


def _calibration(source: Tensor, masses: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift from out-of-fold scores to the log density ratio, pools weighted alike (Platt 1999)."""
    scores = with_bias(torch.cat([source, target])[:, None])
    side = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).long()
    mass = torch.ones_like(source) if masses is None else masses
    weights = torch.cat([mass / mass.sum(), torch.full_like(target, 1 / len(target))])
    probe = fit_probes(scores, side, weights[None], 2, ridge=1e-3)[0]
    slope, shift = probe[:, 1] - probe[:, 0]
    return slope, shift


def _spread(scores: Tensor) -> Tensor:
    return scores.std(correction=0).clamp(min=1e-3)
