"""What people do without learned rates, as plans: how much each source row counts, and each target image.

Every method has the same shape, `(evidence, *, seed, target_weight) -> RatePlan`, and chooses what it has to choose
on held-out folds of the target, by the same judge. `BASELINES` names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from homing.errors import DataError
from homing.rates.learned.balance import balanced_within_classes
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.groups import groups_of
from homing.rates.learned.judge import FOLDS, RatesFrom, judge
from homing.rates.learned.learner import JUDGED_ROWS, WIDTH, learn_rates
from homing.rates.learned.likeness import target_likeness
from homing.rates.learned.plan import RatePlan
from homing.rates.learned.rate_model import Setting, log_prior, weight_ladder

OVERSAMPLING = 10.0
"""How often a target image counts where nothing else is asked for."""

_FLATTENINGS = (1.0, 0.5, 0.25)


class Baseline(Protocol):
    """A method that decides before training how much each row counts."""

    def __call__(self, evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
        """Plan the training.

        Args:
            evidence: Features and labels of both pools.
            seed: Seed of folds and cross-fits, where the method has any.
            target_weight: How often each target image counts; `None`: chosen on held-out folds of the target.
        """
        ...


def source_only(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """The pool as it is, without the target."""
    return RatePlan(torch.ones(evidence.num_source), target_weight=0.0)


def target_only(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """The target's few images, without the pool."""
    return RatePlan(torch.zeros(evidence.num_source), target_weight=1.0)


def pooled(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Both pools as one, every image alike."""
    return RatePlan(torch.ones(evidence.num_source), target_weight=1.0)


def pooled_oversampled(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Both pools as one, target images repeated: what learned rates must beat."""
    weights = weights_of(evidence, target_weight)
    return _best_weight(evidence, weights, lambda part, some: torch.ones(len(some), part.num_source), seed)


def density_ratio(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Importance weighting: rates follow the density ratio of target to source, flattened by an exponent.

    The ratio comes from a calibrated logistic regression (Bickel et al. 2009), the exponent, which trades bias for
    variance (Shimodaira 2000), from held-out folds of the target.
    """
    weights = weights_of(evidence, target_weight)
    settings = [(weight, exponent) for exponent in _FLATTENINGS for weight in weights]

    def rates_from(part: Evidence, some: Sequence[tuple[float, float]]) -> Tensor:
        exponents = torch.tensor([[exponent] for _, exponent in some])
        ratio = (exponents * target_likeness(part, seed).log_ratio).exp()
        return balanced_within_classes(ratio, part.source_labels, part.num_classes, part.masses)

    chosen = judged_weight(evidence, [weight for weight, _ in settings], lambda part: rates_from(part, settings), seed)
    weight, exponent = settings[chosen]
    # What was judged is what is applied: to the whole source, and in memory one setting at a time.
    rates = rates_from(evidence.projected(WIDTH), [settings[chosen]])[0]
    return RatePlan(rates, weight, phi={"exponent": exponent, "target_weight": weight})


def oracle(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Rates from the truth, where it is known: matching rows weigh as target images do, wrong labels nothing.

    Raises:
        DataError: The evidence does not say which rows match and which labels are right.
    """
    if evidence.matches is None or evidence.clean is None:
        raise DataError("The oracle needs a simulated study: matches and clean are not known for this pool.")
    weights = weights_of(evidence, target_weight)

    def rates_from(part: Evidence, some: Sequence[float]) -> Tensor:
        assert part.matches is not None
        assert part.clean is not None
        rates = torch.where(part.matches, torch.tensor(some)[:, None], 1.0) * part.clean
        return balanced_within_classes(rates, part.source_labels, part.num_classes, part.masses)

    return _best_weight(evidence, weights, rates_from, seed)


def hierarchical(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Learned rates: `homing.rates.learn_rates`."""
    return learn_rates(evidence, target_weight=target_weight, seed=seed)


def weights_of(evidence: Evidence, target_weight: float | None) -> tuple[float, ...]:
    """Weights of a target image to choose from: the one that is given, or the ladder."""
    return (target_weight,) if target_weight is not None else weight_ladder(evidence.num_source, evidence.num_target)


def _best_weight(
    evidence: Evidence, weights: tuple[float, ...], rates_from: Callable[[Evidence, Sequence[float]], Tensor], seed: int
) -> RatePlan:
    """The plan with the best of the target weights `[S]`; `rates_from` gives rates `[S, N]` of some of them."""
    chosen = judged_weight(evidence, weights, lambda part: rates_from(part, weights), seed) if len(weights) > 1 else 0
    weight = weights[chosen]
    return RatePlan(rates_from(evidence, [weight])[0], weight, phi={"target_weight": weight})


def judged_weight(evidence: Evidence, weights: Sequence[float], rates_from: RatesFrom, seed: int) -> int:
    """The chosen candidate, by the judge of the learned rates, with its prior on the target's weight.

    A large source is thinned for it, as for the learned rates. A target too small for folds leaves the prior alone.
    """
    prior = log_prior([Setting(weight) for weight in weights], evidence.num_source, evidence.num_target)
    folds = min(FOLDS, evidence.num_target)
    if folds < 2:
        return int(prior.argmax())
    judged = evidence.projected(WIDTH).thinned(JUDGED_ROWS, by=torch.arange(evidence.num_source))
    groups = groups_of(judged, torch.ones(judged.num_source))
    return judge(
        judged, torch.tensor(weights), rates_from, log_prior=prior, folds=folds, seed=seed, groups=groups
    ).chosen


BASELINES: dict[str, Baseline] = {
    "source_only": source_only,
    "target_only": target_only,
    "pooled": pooled,
    "uniform": pooled_oversampled,
    "pooled_oversampled": pooled_oversampled,
    "density_ratio": density_ratio,
    "hierarchical": hierarchical,
    "oracle": oracle,
}
