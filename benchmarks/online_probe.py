"""Rates of the methods that learn while a model trains, from a linear probe that trains on frozen features.

The probe takes minibatches of the source by SGD, with the target's whole gradient as the guide at every step; the
alignment of each sample has a closed form there. What comes out is a rate for each source row, so that these methods
stand in the same comparison as those that plan before training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from homing.rates.learned.balance import balanced_within_classes
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.judge import JUDGE_RIDGE
from homing.rates.learned.probe import fit_probes, with_bias
from homing.rates.online.reweighting import WeightNet, aligned_weights
from homing.rates.table import RateTable

EPOCHS, BATCH, LEARNING_RATE = 20, 128, 0.02

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows, losses and alignments `[B]` of a step to the weights `[B]` that it is taken with."""


def l2rw_rates(evidence: Evidence, target_weight: float, seed: int) -> Tensor:
    """Mean weight of each source row over its visits: in proportion to positive alignments, anew at each step."""
    return trained_rates(evidence, target_weight, seed, lambda rows, losses, alignments: aligned_weights(alignments))


def weight_net_rates(evidence: Evidence, target_weight: float, seed: int) -> Tensor:
    """Mean weight of each source row over its visits: by its loss at the time, through a net that learns from all."""
    net = WeightNet(seed)

    def weigh(rows: Tensor, losses: Tensor, alignments: Tensor) -> Tensor:
        weights = net.weights(losses)
        net.learn(losses, alignments)
        return weights

    return trained_rates(evidence, target_weight, seed, weigh)


def instance_rates(evidence: Evidence, target_weight: float, seed: int) -> Tensor:
    """A rate for each source row, moved by its alignments and kept from visit to visit."""
    table = RateTable(evidence.num_source, momentum=0.9, num_classes=evidence.num_classes)

    def weigh(rows: Tensor, losses: Tensor, alignments: Tensor) -> Tensor:
        table.update(rows, alignments, evidence.source_labels[rows])
        return table[rows]

    trained_rates(evidence, target_weight, seed, weigh)
    return balanced_within_classes(table.rates, evidence.source_labels, evidence.num_classes)


@torch.no_grad()
def trained_rates(evidence: Evidence, target_weight: float, seed: int, weigh: Weigh) -> Tensor:
    """Train a probe whose steps `weigh` weighs.

    Returns:
        Mean weight of each source row over all epochs, mean 1 within each class; float32 `[N]`.
    """
    source, target = with_bias(evidence.source_features), with_bias(evidence.target_features)
    labels, num_source = evidence.source_labels, evidence.num_source
    mass = target_weight * evidence.num_target / num_source  # of the target, against a source of mass 1
    probe = _uniform_probe(source, target, evidence, target_weight)
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(num_source)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(num_source, generator=generator), BATCH):
            guide = _residuals(target, evidence.target_labels, probe)[0] / evidence.num_target
            guide = target.T @ guide
            residuals, losses = _residuals(source[rows], labels[rows], probe)
            alignments = ((source[rows] @ guide) * residuals).sum(dim=1)
            weights = weigh(rows, losses, alignments)
            total[rows] += weights
            step = source[rows].T @ (residuals * weights[:, None]) / len(rows) + mass * guide
            step[:-1] += (1 + mass) * JUDGE_RIDGE * probe[:-1]
            probe -= LEARNING_RATE / (1 + mass) * step
    return balanced_within_classes(total / EPOCHS, labels, evidence.num_classes)


def _uniform_probe(source: Tensor, target: Tensor, evidence: Evidence, target_weight: float) -> Tensor:
    """Where training begins, as end to end: `[D + 1, C]`, the probe of uniform rates."""
    features, labels = torch.cat([source, target]), torch.cat([evidence.source_labels, evidence.target_labels])
    weights = torch.cat([torch.ones(len(source)), torch.full((len(target),), target_weight)])
    return fit_probes(features, labels, weights[None], evidence.num_classes, ridge=JUDGE_RIDGE)[0]


def _residuals(features: Tensor, labels: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of each row's loss by its logits `[B, C]`, and the losses `[B]`."""
    log_probs = (features @ probe).log_softmax(dim=1)
    one_hot = functional.one_hot(labels, probe.shape[1])
    return log_probs.exp() - one_hot, -log_probs.gather(1, labels[:, None]).squeeze(1)
