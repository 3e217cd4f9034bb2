"""The rate model: three shared numbers turn what is known about a row into its rate."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from homing.rates.learned.balance import spread_within_classes
from homing.rates.learned.consistency import Consistency, label_consistency, neutral_consistency
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.label_by_label import lean_label_by_label
from homing.rates.learned.likeness import Likeness, target_likeness
from homing.rates.learned.plan import Doubt
from homing.rates.learned.work import ALONE, Work

DESCRIPTORS = ("target_likeness", "label_consistency")
RUNGS, MIDDLE_RUNG = 5, 2
BEYOND_TOP = (10.0, 100.0)
"""Weights of the whole target, in weights of the whole source, that leave next to nothing of a source that misleads."""
MOST_BEYOND = 100_000_000
"""Visits of an epoch, above which they are not tried."""
IGNORING_LABELS = 4.0
"""Rungs that rates which ignore what the pool says of its labels stand off: thousands of labels say it, and a few dozen
target images must be very sure to overrule them."""
LET_GO = 8.0
"""Power of the probability that a label is right. Not judged: a few dozen target images cannot tell how much to let
go, the pool tells by itself (`pool_consistency`), and where its labels are right, no power changes anything. Far
above 1, because a network learns wrong labels by heart where they count at all."""
LET_GO_OF_DRAWS = 2.0
"""The same of how often a row is drawn where the loss allows for wrong labels (`training.losses`): the higher power
loses hard rows with right labels, too, and they teach most."""


@dataclass(frozen=True)
class Setting:
    """The numbers that the held-out judge decides.

    Attributes:
        target_weight: How often each target image counts.
        match_lift: Factor on the rate of a row that surely matches the target; 1 leaves all alike.
        let_go: Power of the probability that a row's label is right; 0 leaves all alike. Above 1, because a wrong
            label costs more than a right one adds.
    """

    target_weight: float
    match_lift: float = 1.0
    let_go: float = 0.0

    @property
    def pools(self) -> bool:
        """Whether all rates are 1, whatever is known."""
        return self.match_lift == 1 and self.let_go == 0

    def as_dict(self) -> dict[str, float]:
        """Names and values, for reports."""
        return asdict(self)


def weight_ladder(num_source: int, num_target: int) -> tuple[float, ...]:
    """Weights of a target image worth trying: from 1 to where the target weighs as much as the whole source.

    Five rungs of equal ratio, at least up to 10, so that they mean the same for any two sizes of pools.
    """
    top = max(10.0, num_source / num_target)
    return tuple(round(top ** (rung / (RUNGS - 1)), 2) for rung in range(RUNGS))


def candidate_settings(
    names: tuple[str, ...], num_source: int, num_target: int, target_weight: float | None
) -> list[Setting]:
    """Everything that the judge chooses from; uniform rates are among them, and targets beside which no row counts.

    A row that surely matches is worth a target image at most: lifts climb the ladder of target weights.

    Args:
        names: Descriptors in use, out of `DESCRIPTORS`.
        num_source: N.
        num_target: n.
        target_weight: The only target weight to try; `None`: the ladder.
    """
    ladder = weight_ladder(num_source, num_target)
    weights = ladder if target_weight is None else (target_weight,)
    lifts = ladder[:-1] if "target_likeness" in names else (1.0,)
    let_go = LET_GO if "label_consistency" in names else 0.0
    uniform = [Setting(weight) for weight in weights]
    beyond = [part for part in BEYOND_TOP if names and target_weight is None and part * num_source <= MOST_BEYOND]
    little = [Setting(round(part * ladder[-1], 2), 1.0, let_go) for part in beyond]
    return uniform + [s for lift in lifts for w in weights if (s := Setting(w, lift, let_go)) not in uniform] + little


def log_prior(settings: list[Setting], num_source: int, num_target: int) -> Tensor:
    """`[S]` in nats: a Gaussian around the middle rung, one rung wide, for the target's weight and for the lift.

    Rates that ignore what the pool says of its labels stand `IGNORING_LABELS` rungs off, weights beyond the ladder one
    rung above it.
    """
    ladder = weight_ladder(num_source, num_target)
    numbers = torch.tensor([[s.target_weight, s.match_lift] for s in settings]).clamp(min=1.0)
    off = (numbers.log() / math.log(ladder[1])).clamp(max=RUNGS) - MIDDLE_RUNG
    ignores_labels = torch.tensor([s.let_go == 0 for s in settings])
    return -0.5 * (off.square().sum(dim=1) + IGNORING_LABELS**2 * ignores_labels)


@dataclass(frozen=True)
class Description:
    """Both descriptors of every source row; `None` where a descriptor is switched off."""

    likeness: Likeness
    consistency: Consistency


def describe(
    evidence: Evidence, names: tuple[str, ...], pool: Consistency, seed: int, work: Work = ALONE
) -> Description:
    """Compute the named descriptors from both pools; one that is not named has no influence on rates.

    Args:
        evidence: Both pools, the target being what may be seen of it.
        names: Out of `DESCRIPTORS`.
        pool: What the pool alone tells of its labels, from `pool_consistency`; the same for every fold.
        seed: Seed of the cross-fits.
        work: Told of, and where it runs.
    """
    likeness = target_likeness(evidence, seed, work.part(0, 0.2))
    neutral = torch.zeros(evidence.num_source)
    if "target_likeness" not in names:
        likeness = replace(likeness, match=neutral, share=0.0)
    if "label_consistency" in names and evidence.source_sets is not None:
        consistency = lean_label_by_label(evidence, likeness.match, pool, seed, work.part(0.2, 1))
    elif "label_consistency" in names:
        consistency = label_consistency(evidence, likeness.match, pool, seed, work=work.part(0.2, 1))
    else:
        consistency = neutral_consistency(evidence.source_labels, evidence.num_classes)
    return Description(likeness, consistency)


def rates_of(settings: list[Setting], description: Description, evidence: Evidence) -> Tensor:
    """Rates of every source row under each setting.

    `r = (1 + (match_lift - 1) * P(match)) * P(label right) ** let_go`, scaled to mean 1 within each class and spread
    over `LEAST_ROWS` of it at least, times `class_presence` of the class. A setting that neither lifts nor lets go is
    plain pooling: all rates are 1.

    Args:
        settings: S settings.
        description: Descriptors of the N source rows.
        evidence: Both pools, for the source's classes.

    Returns:
        `[S, N]` float32, at least 0.
    """
    rates, _ = _spread(settings, description, evidence)
    pooling = torch.tensor([[setting.pools] for setting in settings])
    return rates * torch.where(pooling, 1.0, class_presence(evidence)[evidence.source_labels])


def doubt_of(setting: Setting, description: Description, evidence: Evidence) -> Doubt | None:
    """How rows are drawn, and how right their labels are, for a loss that allows for wrong ones; None: all are right.

    In a class of few rows a label of its own seems wrong to a probe that has hardly seen another. There rates stay
    uniform (`spread_within_classes`), and as far as they do the labels count as right.

    Args:
        setting: The chosen one, which lets go of rows by `LET_GO`.
        description: Descriptors of the N source rows.
        evidence: Both pools, for the source's classes.
    """
    right = description.consistency.right
    if setting.let_go <= LET_GO_OF_DRAWS or bool((right == 1).all()):
        return None
    draws, uniform = _spread([replace(setting, let_go=LET_GO_OF_DRAWS)], description, evidence)
    right = right + uniform[0, evidence.source_labels] * (1 - right)
    return Doubt(draws[0] * class_presence(evidence)[evidence.source_labels], right)


def _spread(settings: list[Setting], description: Description, evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Rates `[S, N]` of mean 1 in each class under each setting, and the share of uniform ones in each, `[S, C]`."""
    lift = torch.tensor([[setting.match_lift] for setting in settings])
    let_go = torch.tensor([[setting.let_go] for setting in settings])
    matching = 1 + (lift - 1) * description.likeness.match
    keeping = description.consistency.right**let_go
    return spread_within_classes(matching * keeping, evidence.source_labels, evidence.num_classes, evidence.masses)


def class_presence(evidence: Evidence) -> Tensor:
    """`[C]` in 0..1, how far each class counts: 1 where the target has it, else as often as it is to be expected there.

    The target may be of fewer classes than the pool. The chance that its next image is of a class not seen so far is
    about `(classes seen once + 1) / (images + 1)` (Good 1953, smoothed by one image); spread over the missing classes
    and held against the mean share of a class that is there, it says how much each of them still counts. Where images
    may have several labels, a class is there where any image has it; rows without a label are of no class, and count.
    """
    counts = torch.bincount(evidence.target_labels, minlength=evidence.num_classes)
    if evidence.target_sets is not None:
        counts = torch.cat([evidence.target_sets.sum(dim=0), torch.tensor([evidence.num_target + 1])])
    seen, missing = int((counts > 0).sum()), int((counts == 0).sum())
    if not missing:
        return torch.ones(evidence.num_classes)
    unseen = (int((counts == 1).sum()) + 1) / (evidence.num_target + 1)
    return torch.where(counts > 0, 1.0, min(1.0, unseen / missing * seen))
