"""What people do without learned rates, as plans: how much each source row counts, and each target image.

Every method has the same shape, `(evidence, *, seed, target_weight) -> RatePlan`, and chooses what it has to choose
on held-out folds of the target, by the same judge. `BASELINES` names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from homing.errors import DataError
from homing.evaluation.online_probe import instance_rates, l2rw_rates, weight_net_rates
from homing.rates.descriptors import target_likeness
from homing.rates.evidence import Evidence
from homing.rates.folds import held_out_folds
from homing.rates.judge import FOLDS, JUDGE_RIDGE, RatesFrom, judge
from homing.rates.learner import JUDGED_ROWS, WIDTH, learn_rates
from homing.rates.plan import RatePlan, balanced_within_classes
from homing.rates.probe import fit_probes, log_probabilities, with_bias
from homing.rates.rate_model import Setting, log_prior, weight_ladder

OVERSAMPLING = 10.0
"""How often a target image counts where nothing else is asked for."""

_FLATTENINGS = (1.0, 0.5, 0.25)
PROBE_STEPS = 40
SOURCE_SHARES = (0.975, 0.95, 0.9, 0.8, 0.5)
"""Shares of a probe's steps that `sequential` tries."""

LearnOnline = Callable[[Evidence, float, int], Tensor]
"""Rates `[N]` from both pools, the target's weight while they are learned, and a seed."""


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
    weights = _weights(evidence, target_weight)
    return _best_weight(evidence, weights, lambda part: torch.ones(len(weights), part.num_source), seed)


def density_ratio(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Importance weighting: rates follow the density ratio of target to source, flattened by an exponent.

    The ratio comes from a calibrated logistic regression (Bickel et al. 2009), the exponent, which trades bias for
    variance (Shimodaira 2000), from held-out folds of the target.
    """
    weights = _weights(evidence, target_weight)
    settings = [(weight, exponent) for exponent in _FLATTENINGS for weight in weights]
    exponents = torch.tensor([[exponent] for _, exponent in settings])

    def rates_from(part: Evidence) -> Tensor:
        ratio = (exponents * target_likeness(part, seed).log_ratio).exp()
        return balanced_within_classes(ratio, part.source_labels, part.num_classes)

    chosen = _judged(evidence, [weight for weight, _ in settings], rates_from, seed)
    weight, exponent = settings[chosen]
    rates = rates_from(evidence.projected(WIDTH))[chosen]
    return RatePlan(rates, weight, phi={"exponent": exponent, "target_weight": weight})


def oracle(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Rates from the truth, where it is known: matching rows weigh as target images do, wrong labels nothing.

    Raises:
        DataError: The evidence does not say which rows match and which labels are right.
    """
    if evidence.matches is None or evidence.clean is None:
        raise DataError("The oracle needs a simulated study: matches and clean are not known for this pool.")
    weights = _weights(evidence, target_weight)

    def rates_from(part: Evidence) -> Tensor:
        assert part.matches is not None
        assert part.clean is not None
        rates = torch.where(part.matches, torch.tensor(weights)[:, None], 1.0) * part.clean
        return balanced_within_classes(rates, part.source_labels, part.num_classes)

    return _best_weight(evidence, weights, rates_from, seed)


def instance(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """A rate of its own for each source row, learned from its alignments with the target."""
    return _online(evidence, instance_rates, seed, target_weight)


def l2rw(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Learning to reweight (Ren et al. 2018): weights in proportion to positive alignments, without a memory."""
    return _online(evidence, l2rw_rates, seed, target_weight)


def meta_weight_net(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Meta-Weight-Net (Shu et al. 2019): a small net from a row's loss to its weight, learned from alignments."""
    return _online(evidence, weight_net_rates, seed, target_weight)


def sequential(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Source first, then target alone; the share of the source's steps by the held-out loss of target images."""
    reduced = evidence.projected(WIDTH).thinned(JUDGED_ROWS, by=torch.arange(evidence.num_source))
    share, folds = SOURCE_SHARES[0], min(FOLDS, evidence.num_target)
    if folds >= 2:
        losses = torch.zeros(len(SOURCE_SHARES))
        first = source_then_target(reduced, 1.0)
        for held_out in held_out_folds(evidence.target_labels, folds, seed):
            seen = torch.ones(evidence.num_target, dtype=torch.bool)
            seen[held_out] = False
            features, labels = with_bias(reduced.target_features[held_out]), evidence.target_labels[held_out]
            for index, candidate in enumerate(SOURCE_SHARES):
                probe = source_then_target(reduced.with_target(seen), candidate, first)
                losses[index] += functional.nll_loss(log_probabilities(features, probe)[0], labels, reduction="sum")
        share = SOURCE_SHARES[int(losses.argmin())]
    return RatePlan(torch.zeros(evidence.num_source), 1.0, phi={"source_share": share}, source_share=share)


def source_then_target(evidence: Evidence, source_share: float, first: Tensor | None = None) -> Tensor:
    """A linear probe fitted to the source, then moved towards the target for what is left of its steps.

    Args:
        evidence: Both pools.
        source_share: Share of the steps that go to the source, in (0, 1]; 1: the probe of the source.
        first: That probe, where it is known; it does not depend on the target.

    Returns:
        `[1, D + 1, C]`.
    """
    if first is None:
        features, weights = with_bias(evidence.source_features), torch.ones(1, evidence.num_source)
        first = fit_probes(features, evidence.source_labels, weights, evidence.num_classes, ridge=JUDGE_RIDGE)
    num_steps = round((1 - source_share) * PROBE_STEPS)
    if not num_steps:
        return first
    return fit_probes(
        with_bias(evidence.target_features),
        evidence.target_labels,
        torch.ones(1, evidence.num_target),
        evidence.num_classes,
        ridge=JUDGE_RIDGE,
        start=first,
        max_steps=num_steps,
    )


def hierarchical(evidence: Evidence, *, seed: int = 0, target_weight: float | None = OVERSAMPLING) -> RatePlan:
    """Learned rates: `homing.rates.learn_rates`."""
    return learn_rates(evidence, target_weight=target_weight, seed=seed)


def _online(evidence: Evidence, learn: LearnOnline, seed: int, target_weight: float | None) -> RatePlan:
    """Rates learned by a probe that trains, in every fold anew; the target's weight is then judged with them."""
    weights = _weights(evidence, target_weight)
    middle = weights[len(weights) // 2]

    def rates_from(part: Evidence) -> Tensor:
        return learn(part, middle * part.num_source / evidence.num_source, seed).expand(len(weights), -1)

    chosen = _judged(evidence, weights, rates_from, seed) if len(weights) > 1 else 0
    rates = rates_from(evidence.projected(WIDTH))[0]
    return RatePlan(rates, weights[chosen], phi={"target_weight": weights[chosen]})


def _weights(evidence: Evidence, target_weight: float | None) -> tuple[float, ...]:
    return (target_weight,) if target_weight is not None else weight_ladder(evidence.num_source, evidence.num_target)


def _best_weight(evidence: Evidence, weights: tuple[float, ...], rates_from: RatesFrom, seed: int) -> RatePlan:
    """The plan with the best of the target weights `[S]`, and its rates out of `[S, N]`."""
    chosen = _judged(evidence, weights, rates_from, seed) if len(weights) > 1 else 0
    return RatePlan(rates_from(evidence)[chosen], weights[chosen], phi={"target_weight": weights[chosen]})


def _judged(evidence: Evidence, weights: Sequence[float], rates_from: RatesFrom, seed: int) -> int:
    """The chosen candidate, by the judge of the learned rates, with its prior on the target's weight.

    A large source is thinned for it, as for the learned rates. A target too small for folds leaves the prior alone.
    """
    prior = log_prior([Setting(weight) for weight in weights], evidence.num_source, evidence.num_target)
    folds = min(FOLDS, evidence.num_target)
    if folds < 2:
        return int(prior.argmax())
    judged = evidence.projected(WIDTH).thinned(JUDGED_ROWS, by=torch.arange(evidence.num_source))
    # The target weighs against a thinned source what it will weigh against the whole.
    scaled = torch.tensor(weights) * judged.num_source / evidence.num_source
    return judge(judged, scaled, rates_from, log_prior=prior, folds=folds, seed=seed).chosen


BASELINES: dict[str, Baseline] = {
    "source_only": source_only,
    "target_only": target_only,
    "pooled": pooled,
    "uniform": pooled_oversampled,
    "pooled_oversampled": pooled_oversampled,
    "sequential": sequential,
    "density_ratio": density_ratio,
    "l2rw": l2rw,
    "meta_weight_net": meta_weight_net,
    "instance": instance,
    "hierarchical": hierarchical,
    "oracle": oracle,
}
