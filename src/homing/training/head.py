"""Start the head from the probe that fits the scanned features best (linear probing, then fine-tuning)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from homing.models.parts import classifier_of
from homing.rates.probe import fit_probes, with_bias
from homing.training.plan import Phase

_MAX_ROWS = 20_000


@torch.no_grad()
def probe_head(model: nn.Module, features: Tensor, labels: Tensor, phase: Phase, ridge: float = 1e-3) -> None:
    """Set the model's linear head to the logistic regression of the plan.

    It keeps the backbone from being distorted by a random head (Kumar et al. 2022).

    Args:
        model: Its head is overwritten.
        features: What the head sees, float32 [N + n, D]: source, then target.
        labels: int64 [N + n].
        phase: Masses of source and target rows.
        ridge: Penalty of the probe.
    """
    head = classifier_of(model)
    num_target = len(labels) - len(phase.rates)
    masses = torch.cat([phase.rates, torch.full((num_target,), float(phase.target_weight))])
    rows = masses.nonzero().squeeze(1)
    if len(rows) > _MAX_ROWS:  # enough for a start: the heaviest rows, every class among them by the rates' balance
        generator = torch.Generator().manual_seed(0)
        rows = torch.multinomial(masses.double(), _MAX_ROWS, generator=generator).sort().values
    center = features[rows].mean(dim=0)
    weights = fit_probes(
        with_bias(features[rows] - center), labels[rows], masses[None, rows], head.out_features, ridge=ridge
    )[0]
    head.weight.copy_(weights[:-1].T)
    if head.bias is not None:
        head.bias.copy_(weights[-1] - center @ weights[:-1])
