"""Methods that learn while a model trains, and the one that changes pools midway, as plans of a linear probe.

End to end they run in the training loop; on frozen features they stand in the same comparison by these plans.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from online_probe import instance_rates, l2rw_rates, weight_net_rates
from torch import Tensor
from torch.nn import functional

from homing.evaluation.baselines import BASELINES, OVERSAMPLING, Baseline, judged_weight, weights_of
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.folds import held_out_folds
from homing.rates.learned.judge import FOLDS, JUDGE_RIDGE
from homing.rates.learned.learner import JUDGED_ROWS, WIDTH
from homing.rates.learned.plan import RatePlan
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias

PROBE_STEPS = 40
SOURCE_SHARES = (0.975, 0.95, 0.9, 0.8, 0.5)
"""Shares of a probe's steps that `sequential` tries."""

LearnOnline = Callable[[Evidence, float, int], Tensor]
"""Rates `[N]` from both pools, the target's weight while they are learned, and a seed."""


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


def _online(evidence: Evidence, learn: LearnOnline, seed: int, target_weight: float | None) -> RatePlan:
    """Rates learned by a probe that trains, in every fold anew; the target's weight is then judged with them."""
    weights = weights_of(evidence, target_weight)
    middle = weights[len(weights) // 2]

    def rates_from(part: Evidence) -> Tensor:
        return learn(part, middle * part.num_source / evidence.num_source, seed).expand(len(weights), -1)

    chosen = judged_weight(evidence, weights, rates_from, seed) if len(weights) > 1 else 0
    rates = rates_from(evidence.projected(WIDTH))[0]
    return RatePlan(rates, weights[chosen], phi={"target_weight": weights[chosen]})


PROBES: dict[str, Baseline] = {
    **BASELINES,
    "sequential": sequential,
    "l2rw": l2rw,
    "meta_weight_net": meta_weight_net,
    "instance": instance,
}
