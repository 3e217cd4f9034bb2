"""What is known about each source row before any training: does it match the target, is its label right.

Both are *probabilities*, and both find out from the pool itself how many rows they concern. A pool in which nothing
matches has match probabilities of 0, a pool without wrong labels has right-label probabilities of 1: rates made
from them are then uniform by construction, with nothing to be decided.

Both are fitted with target images, so a judge refits both inside each fold (`judge.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from homing.rates.learned.evidence import Evidence
from homing.rates.learned.label_noise import label_noise, own_class, right_from_clean, right_from_noisy
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias

CROSS_FITS = 5
LIKENESS_RIDGE = 0.3
CONSISTENCY_RIDGE = 0.05
CONSISTENCY_ROUNDS = 2
LEAN = 9.0
"""Extra weight of a surely matching row, and of a target image, in the probe that judges labels: it leans to the
target, because a probe of the pool as it is finds the rows that match inconsistent, being few and otherwise."""

_QUANTILES = (0.2, 0.3, 0.4, 0.5)
_CELL = 1e-3  # of the spread: wide enough for the rounding of another batch, too narrow for another image


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


@dataclass(frozen=True)
class Consistency:
    """How well each source row's label agrees with the rest of the pool.

    Attributes:
        log_probability: `[N]` out-of-fold log-probability of the row's own label.
        right: `[N]` in 0..1, probability that the label is right.
        noise: `[C, C]` how often each given label (column) stands on each true class (row), see `label_noise`.
        best: `[N]` int64, the class that an out-of-fold probe finds likeliest.
        pool_probe: `[D + 1, C]` mean of the cross-fitted probes of the pool, for rows that none of them has seen.
        lean_probe: `[D + 1, C]` the same of the probes that lean to the target.
    """

    log_probability: Tensor
    right: Tensor
    noise: Tensor
    best: Tensor
    pool_probe: Tensor | None = None
    lean_probe: Tensor | None = None

    @property
    def wrong_share(self) -> float:
        """Share of the pool's labels that are wrong, 0..1, classes counting alike."""
        return 1 - float(self.noise.diagonal().mean())


def target_likeness(evidence: Evidence, seed: int) -> Likeness:
    """Score every source row by a classifier of target against source that has not seen the row.

    A heavily penalised logistic regression, cross-fitted over both pools: rows that match and lie in the pool are
    labelled "source" to the classifier, and one that had seen them would have learned to deny it. Source classes
    are weighted as the target's are, so that the score tells domains, not classes.
    """
    num_source, num_target = evidence.num_source, evidence.num_target
    if num_source < 2:
        return Likeness(torch.zeros(num_source), torch.zeros(num_source), 0.0)
    features = with_bias(torch.cat([evidence.source_features, evidence.target_features]))
    side = torch.cat([torch.zeros(num_source, dtype=torch.int64), torch.ones(num_target, dtype=torch.int64)])
    num_fits = max(2, min(CROSS_FITS, num_source, num_target))
    fold = torch.cat([_folds(num_source, num_fits, seed), _folds(num_target, num_fits, seed)])
    weights = torch.cat([_class_weights(evidence) / num_source, torch.full((num_target,), 1 / num_target)])
    kept = fold != torch.arange(num_fits)[:, None]
    probes = fit_probes(features, side, weights * kept, 2, ridge=LIKENESS_RIDGE)
    scores, mean_probe = torch.zeros(len(side)), torch.zeros(features.shape[1])
    for index, probe in enumerate(probes):
        score = features @ (probe[:, 1] - probe[:, 0])
        # Each fit has its own scale; its unseen source rows are the common yardstick.
        unseen = score[(fold == index) & (side == 0)]
        spread = unseen.std(correction=0).clamp(min=1e-6)
        scores = torch.where(fold == index, (score - unseen.mean()) / spread, scores)
        mean_probe += (probe[:, 1] - probe[:, 0]) / (spread * num_fits)
        mean_probe[-1] -= unseen.mean() / (spread * num_fits)
    source, target = scores[:num_source], scores[num_source:]
    share = _matching_share(source, target)
    slope, shift = _calibration(source, target)
    probe = slope * mean_probe
    probe[-1] += shift
    return Likeness(slope * source + shift, _match_probability(source, target, share), share, probe)


def pool_consistency(evidence: Evidence, seed: int) -> Consistency:
    """Probability that each label is right as the pool alone tells it; the target is not looked at.

    Which label stands on which class how often is told by the rows that a cross-fitted probe is most sure of
    (`label_noise`). The posterior of each label follows by Bayes' rule, and the probe is fitted once more with it.
    """
    labels, num_classes = evidence.source_labels, evidence.num_classes
    if num_classes == 1 or evidence.num_source < 2:
        return neutral_consistency(labels, num_classes)
    features, (fold, kept) = with_bias(evidence.source_features), _cross_fits(evidence, seed)
    probes = fit_probes(features, labels, kept.float(), num_classes, ridge=CONSISTENCY_RIDGE)
    log_probs = _out_of_fold(features, probes, fold)
    noise = label_noise(log_probs, labels)
    right = right_from_noisy(log_probs.exp(), labels, noise)
    probes = fit_probes(features, labels, kept * right, num_classes, ridge=CONSISTENCY_RIDGE, start=probes)
    log_probs = _out_of_fold(features, probes, fold)
    return Consistency(
        own_class(log_probs, labels),
        right_from_clean(log_probs.exp(), labels, noise),
        noise,
        log_probs.argmax(dim=1),
        pool_probe=probes.mean(dim=0),
    )


def neutral_consistency(labels: Tensor, num_classes: int) -> Consistency:
    """All labels `[N]` are taken as right."""
    return Consistency(torch.zeros(len(labels)), torch.ones(len(labels)), torch.eye(num_classes), labels)


def label_consistency(
    evidence: Evidence, match: Tensor, pool: Consistency, seed: int, *, target_has_labels: bool = True
) -> Consistency:
    """As the pool tells it for rows of the pool's own kind, as a probe that leans to the target does for the others.

    A probe of the pool as it is finds the rows that match inconsistent, being few and of another kind; one that
    leans to the target finds the rest inconsistent. So each row is judged among its like.

    Args:
        evidence: Both pools; target images count as rows that surely match and are surely right.
        match: `[N]` match probability of each source row.
        pool: What the pool alone tells.
        seed: Seed of the cross-fitting folds.
        target_has_labels: Whether the target's labels are of the source's classes; else its images are left out.
    """
    labels, num_classes = evidence.source_labels, evidence.num_classes
    if num_classes == 1 or not match.any():
        return pool
    features = with_bias(torch.cat([evidence.source_features, evidence.target_features]))
    all_labels = torch.cat([labels, evidence.target_labels])
    fold, kept = _cross_fits(evidence, seed)
    target_weights = torch.full((len(kept), evidence.num_target), (1 + LEAN) * target_has_labels)
    right, log_probs, probes = match + (1 - match) * pool.right, torch.empty(0), None
    for _ in range(CONSISTENCY_ROUNDS):
        weights = torch.cat([kept * (1 + LEAN * match) * right, target_weights], dim=1)
        probes = fit_probes(features, all_labels, weights, num_classes, ridge=CONSISTENCY_RIDGE, start=probes)
        log_probs = _out_of_fold(features, probes, fold)
        right = match * right_from_clean(log_probs.exp(), labels, pool.noise) + (1 - match) * pool.right
    own = match * own_class(log_probs, labels).exp() + (1 - match) * pool.log_probability.exp()
    best = torch.where(match > 0.5, log_probs.argmax(dim=1), pool.best)
    log_own = own.clamp(min=torch.finfo(own.dtype).tiny).log()
    assert probes is not None
    return Consistency(log_own, right, pool.noise, best, pool.pool_probe, lean_probe=probes.mean(dim=0))


def _cross_fits(evidence: Evidence, seed: int) -> tuple[Tensor, Tensor]:
    """The fold of each source row `[N]`, and which rows each cross-fit may see `[F, N]` bool."""
    num_fits = min(CROSS_FITS, evidence.num_source)
    fold = _folds_of_images(evidence.source_features, num_fits, seed + 1)
    return fold, fold != torch.arange(num_fits)[:, None]


def _folds(num_rows: int, num_folds: int, seed: int) -> Tensor:
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)) % num_folds


def _folds_of_images(features: Tensor, num_folds: int, seed: int) -> Tensor:
    """A fold of each row, `[N]`, none of them empty: copies of an image share the fold of the first of them.

    A fit that has seen a copy knows the row's label. Rows without a copy have a fold that does not depend on features.
    """
    folds = _folds(len(features), num_folds, seed)
    image = _same_image(features, torch.Generator().manual_seed(seed))
    first = torch.full((len(features),), len(features)).scatter_reduce(0, image, torch.arange(len(features)), "amin")
    shared = folds[first[image]]
    return shared if len(shared.bincount().nonzero()) == num_folds else folds


def _same_image(features: Tensor, generator: torch.Generator) -> Tensor:
    """`[N]` numbers from 0, equal for rows whose features are: they fall into one cell of three random directions."""
    along = features @ torch.randn(features.shape[1], 3, generator=generator)
    cells = (along / (_CELL * along.std(dim=0, correction=0)).clamp(min=torch.finfo(along.dtype).tiny)).round()
    image: Tensor = torch.unique(cells, dim=0, return_inverse=True)[1]
    return image


def _class_weights(evidence: Evidence) -> Tensor:
    """Weight of each source row that gives the source the target's class shares; mean 1."""
    source = torch.bincount(evidence.source_labels, minlength=evidence.num_classes)
    target = torch.bincount(evidence.target_labels, minlength=evidence.num_classes)
    wanted = (target / evidence.num_target) / (source / evidence.num_source)
    weights = wanted[evidence.source_labels]
    return weights / weights.mean() if weights.any() else torch.ones_like(weights)


def _matching_share(source: Tensor, target: Tensor) -> float:
    """Largest share of the pool that can be of the target's domain (mixture proportion, Blanchard et al. 2010).

    Were a share s of the pool matching, s * q of it would score above the target's upper q-quantile: the pool's
    share up there, divided by q, bounds s for every q. The least of the bounds is taken: rows that merely resemble
    the target crowd at its lower scores, rows of its own domain are found at the higher ones too.
    """
    upper = torch.tensor(_QUANTILES)
    above = (source > torch.quantile(target, 1 - upper)[:, None]).float().mean(dim=1)
    return float((above / upper).min().clamp(max=1.0))


def _match_probability(source: Tensor, target: Tensor, share: float) -> Tensor:
    """`share * p_target(score) / p_source(score)`, held to rise with the score (isotonic), in 0..1."""
    order = source.argsort(descending=True)
    target_tail = torch.special.ndtr((target.mean() - source[order]) / _spread(target))
    # Matching rows expected between one source row and the next: a noisy probability of each.
    expected = torch.diff(target_tail, prepend=torch.zeros(1)) * share * len(source)
    smooth = IsotonicRegression(increasing=False).fit_transform(range(len(source)), expected.double().numpy())
    match = torch.empty_like(source)
    match[order] = torch.from_numpy(smooth).to(source).clamp(0, 1)
    return match


def _calibration(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift from out-of-fold scores to the log density ratio, pools weighted alike (Platt 1999)."""
    scores = with_bias(torch.cat([source, target])[:, None])
    side = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).long()
    weights = torch.cat([torch.full_like(source, 1 / len(source)), torch.full_like(target, 1 / len(target))])
    probe = fit_probes(scores, side, weights[None], 2, ridge=1e-3)[0]
    slope, shift = probe[:, 1] - probe[:, 0]
    return slope, shift


def _spread(scores: Tensor) -> Tensor:
    return scores.std(correction=0).clamp(min=1e-3)


def _out_of_fold(features: Tensor, probes: Tensor, fold: Tensor) -> Tensor:
    """`[N, C]` log-probabilities of each source row by the probe that was fitted without it."""
    log_probs = torch.zeros(len(fold), probes.shape[-1])
    for index in range(len(probes)):
        rows = (fold == index).nonzero().flatten()
        log_probs[rows] = log_probabilities(features[rows], probes[index])
    return log_probs
