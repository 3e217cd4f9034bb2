"""How well each source row's label agrees with the rest of the pool, and how probably it is right.

A *probability* again: in a pool without wrong labels all of them are right, and rates made from them are uniform. What
the pool alone tells never looks at the target and is found once; what a probe that leans to the target tells is
refitted inside each fold of the judge (`judge.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from homing.rates.learned.blocks import BLOCK_ROWS
from homing.rates.learned.drawing import fitted_rows
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.folds import directions_of_images, folds_of_images
from homing.rates.learned.label_noise import (
    NoiseSearch,
    noise_of_sure_rows,
    own_class,
    own_shares,
    right_from_clean,
    right_from_noisy,
    tells,
    unmixing,
)
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias
from homing.rates.learned.together import agreed, over_rows
from homing.rates.learned.work import ALONE, Work

CROSS_FITS = 5
CROSS_FITS_OF_MANY = 2
"""Cross-fits where five of them would take long: rows and classes are many."""
FEW_CELLS = 12_800_000
"""Rows times classes up to which there are `CROSS_FITS`."""
CONSISTENCY_RIDGE = 0.05
RIDGE_CLASSES = 32
"""With more classes the ridge falls as their number rises: so does what each of them bends the loss by."""
CONSISTENCY_ROUNDS = 2
LEAN = 9.0
"""Extra weight of a surely matching row, and of a target image, in the probe that judges labels: it leans to the
target, because a probe of the pool as it is finds the rows that match inconsistent, being few and otherwise."""
NO_MATCH = 1e-6
"""A row that matches with less than this is as the pool tells it: the leaning probe is not asked."""
WARM_CLASSES = 64
"""With more classes than this the leaning probes start from the pool's."""

_NEVER = -1e4  # log-odds of a class that there is no row of
_CELLS = 4_000_000  # of a block of scores
_SEARCHED_CELLS = 2_000_000  # of scores that tell noise from weak features


@dataclass(frozen=True)
class Consistency:
    """How well each source row's label agrees with the rest of the pool.

    Attributes:
        log_probability: `[N]` out-of-fold log-probability of the row's own label.
        right: `[N]` in 0..1, probability that the label is right.
        noise: `[C, C]` how often each given label (column) stands on each true class (row), see `label_noise`; zeros
            for classes that the pool has no row of.
        best: `[N]` int32, the class that an out-of-fold probe finds likeliest.
        pool_probe: `[D + 1, C]` mean of the cross-fitted probes of the pool, for rows that none of them has seen.
        lean_probe: `[D + 1, C]` the same of the probes that lean to the target.
        probes: `[F, D + 1, C]` the cross-fitted probes of the pool.
        fold: `[N]` uint8, which of them has not seen the row or its copies.
        each: Where a row may have several labels: the same of every label by itself, as classes "has it not" and
            "has it". `log_probability` is that of all labels of a row then, `right` the mean over them.
    """

    log_probability: Tensor
    right: Tensor
    noise: Tensor
    best: Tensor
    pool_probe: Tensor | None = None
    lean_probe: Tensor | None = None
    probes: Tensor | None = None
    fold: Tensor | None = None
    each: tuple[Consistency, ...] = ()

    @property
    def wrong_share(self) -> float:
        """Share of the pool's labels that are wrong, 0..1, classes counting alike."""
        if self.each:
            return sum(one.wrong_share for one in self.each) / len(self.each)
        return 1 - float(own_shares(self.noise).mean())

    def of(self, rows: Tensor) -> Consistency:
        """The same of some rows alone, `[m]` int64: what was found in the whole pool is carried, not found anew."""
        return replace(
            self,
            log_probability=self.log_probability[rows],
            right=self.right[rows],
            best=self.best[rows],
            fold=None if self.fold is None else self.fold[rows],
            each=tuple(one.of(rows) for one in self.each),
        )

    def within(self, classes: Tensor) -> Consistency:
        """The same in the numbering of some classes alone, int64 ascending: all that the pool has rows of."""
        best = torch.searchsorted(classes, self.best.long()).to(torch.int32)
        found = self._with_probes(lambda probe: probe[..., classes])
        return replace(found, noise=self.noise[classes][:, classes], best=best)

    def spread_over(self, classes: Tensor, num_classes: int) -> Consistency:
        """The opposite: classes that the pool has no row of are never found, and say nothing of a label."""
        if len(classes) == num_classes:
            return self
        noise = torch.zeros(num_classes, num_classes)
        noise[classes[:, None], classes] = self.noise

        def widened(probe: Tensor) -> Tensor:
            wide = torch.zeros(*probe.shape[:-1], num_classes)
            wide[..., -1, :] = _NEVER
            wide[..., classes] = probe
            return wide

        return replace(self._with_probes(widened), noise=noise, best=classes[self.best.long()].to(torch.int32))

    def _with_probes(self, change: Callable[[Tensor], Tensor]) -> Consistency:
        pool, lean, every = (
            None if probe is None else change(probe) for probe in (self.pool_probe, self.lean_probe, self.probes)
        )
        return replace(self, pool_probe=pool, lean_probe=lean, probes=every)


def neutral_consistency(labels: Tensor, num_classes: int) -> Consistency:
    """All labels `[N]` are taken as right."""
    return Consistency(
        torch.zeros(len(labels)), torch.ones(len(labels)), torch.eye(num_classes), labels.to(torch.int32)
    )


def pool_consistency(evidence: Evidence, seed: int, work: Work = ALONE) -> Consistency:
    """Probability that each label is right as the pool alone tells it; the target is not looked at.

    Which label stands on which class how often is told by the rows that a cross-fitted probe is most sure of, as far as
    weak features do not explain it (`label_noise`). The posterior of each label follows by Bayes' rule, and the probe
    is fitted once more with it. Both are fitted on rows drawn from a large pool; the second probe is then asked about
    all of them.
    """
    labels, num_classes = evidence.source_labels, evidence.num_classes
    if num_classes == 1 or evidence.num_source < 2:
        return neutral_consistency(labels, num_classes)
    fold = _folds(evidence, seed, work.part(0, 0.05))
    rows, drawn = evidence.drawn(fitted_rows(num_classes))
    sample = _Sample(drawn, fold[rows])
    probes = sample.fit(torch.ones(drawn.num_source), None, None, work.part(0.05, 0.5))
    noise = sample.noise(probes, work.part(0.5, 0.53))
    inverse = unmixing(noise)
    (right,) = sample.ask(
        probes,
        lambda log_probs, own: right_from_noisy(log_probs.exp(), own, noise, inverse)[None],
        work.part(0.53, 0.55),
    )
    probes = agreed(sample.fit(right, probes, None, work.part(0.55, 0.85)), work)
    scores = _out_of_fold(evidence, probes, fold, partial(_label_scores, noise=noise), 3, work.part(0.85, 1))
    return Consistency(
        scores[0], scores[1], noise, scores[2].to(torch.int32), probes.mean(dim=0), probes=probes, fold=fold
    )


def label_consistency(
    evidence: Evidence,
    match: Tensor,
    pool: Consistency,
    seed: int,
    *,
    target_has_labels: bool = True,
    work: Work = ALONE,
) -> Consistency:
    """As the pool tells it for rows of the pool's own kind, as a probe that leans to the target does for the others.

    A probe of the pool as it is finds the rows that match inconsistent, being few and of another kind; one that
    leans to the target finds the rest inconsistent. So each row is judged among its like.

    Args:
        evidence: Both pools; target images count as rows that surely match and are surely right.
        match: `[N]` match probability of each source row.
        pool: What the pool alone tells.
        seed: Seed of the cross-fitting folds, where `pool` has none.
        target_has_labels: Whether the target's labels are of the source's classes; else its images are left out.
        work: Told of, and where it runs.
    """
    num_classes = evidence.num_classes
    if num_classes == 1 or not match.any():
        return pool
    alone = evidence.within_source_classes()
    if alone.num_classes < num_classes:
        classes = evidence.source_classes
        target_has_labels &= bool(torch.isin(evidence.target_labels, classes).any())
        found = label_consistency(
            alone, match, pool.within(classes), seed, target_has_labels=target_has_labels, work=work
        )
        return found.spread_over(classes, num_classes)
    fold = _folds(evidence, seed, work) if pool.fold is None else pool.fold
    rows, drawn = evidence.drawn(fitted_rows(num_classes), weights=1 + LEAN * match)
    sample = _Sample(drawn, fold[rows])
    own_match, own_right = match[rows], pool.right[rows]
    right = own_match + (1 - own_match) * own_right
    probes = pool.probes if num_classes > WARM_CLASSES else None
    for number in range(CONSISTENCY_ROUNDS):
        part = work.part(0.4 * number, 0.4 * number + 0.4)
        probes = sample.fit((1 + LEAN * own_match) * right, probes, (1 + LEAN) * target_has_labels, part.part(0, 0.8))
        if number + 1 < CONSISTENCY_ROUNDS:
            (lean,) = sample.ask(
                probes,
                lambda log_probs, own: right_from_clean(log_probs.exp(), own, pool.noise)[None],
                part.part(0.8, 1),
            )
            right = own_match * lean + (1 - own_match) * own_right
    assert probes is not None
    probes = agreed(probes, work)
    asked = match > NO_MATCH
    scores = _out_of_fold(evidence, probes, fold, partial(_label_scores, noise=pool.noise), 3, work.part(0.8, 1), asked)
    own = match * scores[0].exp() + (1 - match) * pool.log_probability.exp()
    own = own.clamp_(min=torch.finfo(own.dtype).tiny).log_()
    right = match * scores[1] + (1 - match) * pool.right
    return replace(
        pool,
        log_probability=torch.where(asked, own, pool.log_probability),
        right=torch.where(asked, right, pool.right),
        best=torch.where(asked & (match > 0.5), scores[2].to(torch.int32), pool.best),
        lean_probe=probes.mean(dim=0),
    )


def consistency_ridge(num_classes: int) -> float:
    """Of the probes that judge labels; one number for many classes would leave them all about as likely."""
    return CONSISTENCY_RIDGE * min(1.0, RIDGE_CLASSES / num_classes)


class _Sample:
    """Rows in memory that probes are fitted on, crosswise: none is asked about rows that it has seen."""

    def __init__(self, drawn: Evidence, fold: Tensor) -> None:
        self._drawn, self._fold = drawn, fold
        self._kept = fold != torch.arange(int(fold.max()) + 1)[:, None]

    def fit(self, weights: Tensor, start: Tensor | None, target_weight: float | None, work: Work) -> Tensor:
        """`[F, D + 1, C]` with rows weighing `[M]` times their masses, beside target images of this weight if any."""
        drawn = self._drawn
        features, labels = drawn.held, drawn.source_labels
        mass = weights if drawn.masses is None else weights * drawn.masses
        every = self._kept * mass
        if target_weight is not None:
            features, labels = torch.cat([features, drawn.target_features]), torch.cat([labels, drawn.target_labels])
            every = torch.cat([every, torch.full((len(every), drawn.num_target), target_weight)], dim=1)
        return fit_probes(
            with_bias(features),
            labels,
            every,
            drawn.num_classes,
            ridge=consistency_ridge(drawn.num_classes),
            start=start,
            work=work,
        )

    def noise(self, probes: Tensor, work: Work) -> Tensor:
        """`[C, C]` how often each label stands on each class, as far as weak features do not explain it."""
        drawn = self._drawn
        confidence, found = self.ask(
            probes,
            lambda log_probs, _: torch.stack([part.float() for part in log_probs.max(dim=1)]),
            work.part(0, 0.5),
            num_answers=2,
        )
        seen = noise_of_sure_rows(confidence, found.long(), drawn.source_labels, drawn.num_classes, drawn.masses)
        if not tells(seen):
            return torch.eye(drawn.num_classes)
        search = NoiseSearch(seen)
        every = -(-drawn.num_source * drawn.num_classes // _SEARCHED_CELLS)
        asked = torch.arange(drawn.num_source) % every == 0
        explained = self.ask(
            probes, search.log_likelihoods, work.part(0.5, 1), num_answers=search.num_answers, asked=asked
        )
        masses = torch.ones(len(asked)) if drawn.masses is None else drawn.masses / drawn.masses[asked].mean()
        return search.believed(explained.double() @ masses.double(), int(asked.sum()))

    def ask(
        self,
        probes: Tensor,
        answer: Callable[[Tensor, Tensor], Tensor],
        work: Work,
        num_answers: int = 1,
        asked: Tensor | None = None,
    ) -> Tensor:
        """`[K, M]` of K answers from log-probabilities `[m, C]` and labels `[m]`, block by block; 0 if not asked."""
        alone = replace(work, together=False)
        return _out_of_fold(self._drawn, probes, self._fold, answer, num_answers, alone, asked)


def _label_scores(log_probs: Tensor, labels: Tensor, *, noise: Tensor) -> Tensor:
    """`[3, M]`: the own label's log-probability, that it is right, and the likeliest class."""
    right = right_from_clean(log_probs.exp(), labels, noise)
    return torch.stack([own_class(log_probs, labels), right, log_probs.argmax(dim=1).to(log_probs)])


def _out_of_fold(
    evidence: Evidence,
    probes: Tensor,
    fold: Tensor,
    answer: Callable[[Tensor, Tensor], Tensor],
    num_answers: int,
    work: Work,
    asked: Tensor | None = None,
) -> Tensor:
    """`[K, N]` of K answers from log-probabilities `[m, C]`, by the probe that has not seen a row, and labels `[m]`."""
    there = probes.to(work.device)

    def of_block(rows: Tensor, block: Tensor) -> Tensor:
        own, features = fold[rows], with_bias(block).to(work.device)
        found = torch.empty(num_answers, len(rows))
        for index, probe in enumerate(there):
            inside = (own == index).nonzero().flatten()
            if len(inside):
                log_probs = log_probabilities(features[inside.to(work.device)], probe).cpu()
                found[:, inside] = answer(log_probs, evidence.source_labels[rows[inside]])
        return found

    size = max(256, min(BLOCK_ROWS, _CELLS // probes.shape[-1]))
    return over_rows(evidence, of_block, num_answers, work, asked=asked, size=size)


def _folds(evidence: Evidence, seed: int, work: Work) -> Tensor:
    """`[N]` uint8: as many cross-fits as the work of them allows."""
    cells = min(evidence.num_source, fitted_rows(evidence.num_classes)) * evidence.num_classes
    wanted = CROSS_FITS if cells <= FEW_CELLS else CROSS_FITS_OF_MANY
    directions = directions_of_images(evidence.source_features.shape[1], seed + 1)
    along = over_rows(evidence, lambda _, block: (block @ directions).T, 3, work).T
    return folds_of_images(along, min(wanted, evidence.num_source), seed + 1)
