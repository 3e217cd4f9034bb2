"""The head: its start from the probe that fits the scanned features best, and two sets of classes side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from homing.models.parts import classifier_of
from homing.rates.learned.probe import fit_probes, with_bias
from homing.training.plan import Phase

_MAX_ROWS = 20_000


@torch.no_grad()
def probe_head(
    model: nn.Module, features: Tensor, labels: Tensor, phase: Phase, ridge: float = 1e-3, split: int | None = None
) -> None:
    """Set the model's linear head to the logistic regression of the plan.

    It keeps the backbone from being distorted by a random head (Kumar et al. 2022).

    Args:
        model: Its head is overwritten.
        features: What the head sees, float32 [N + n, D]: source, then target.
        labels: int64 [N + n].
        phase: Masses of source and target rows.
        ridge: Penalty of the probe.
        split: As in `of_own_side`: each set of classes has a probe of its own, or stays as it is where no row counts.
    """
    head = classifier_of(model)
    num_target = len(labels) - len(phase.rates)
    masses = torch.cat([phase.rates, torch.full((num_target,), float(phase.target_weight))])
    for start, end in ((0, head.out_features),) if split is None else ((0, split), (split, head.out_features)):
        rows = masses.nonzero().squeeze(1)
        if split is not None:
            rows = rows[(labels[rows] >= start) & (labels[rows] < end)]
            if not len(rows):
                continue
        if len(rows) > _MAX_ROWS:  # enough for a start: the heaviest rows, every class among them by the rates' balance
            generator = torch.Generator().manual_seed(0)
            drawn = torch.multinomial(masses[rows].double(), _MAX_ROWS, generator=generator)
            rows = rows[drawn.sort().values]
        center = features[rows].mean(dim=0)
        weights = fit_probes(
            with_bias(features[rows] - center), labels[rows] - start, masses[None, rows], end - start, ridge=ridge
        )[0]
        head.weight[start:end] = weights[:-1].T
        if head.bias is not None:
            head.bias[start:end] = weights[-1] - center @ weights[:-1]


def of_own_side(logits: Tensor, labels: Tensor, split: int | None) -> Tensor:
    """Logits with those put out of the running that are not of the set of classes that a row's label is of.

    Args:
        logits: [B, C].
        labels: int64 [B], in 0..C-1.
        split: Outputs from here on are of another set of classes than those before; None: there is one set.
    """
    if split is None:
        return logits
    is_behind = torch.arange(logits.shape[1], device=logits.device) >= split
    return logits.masked_fill(is_behind != (labels >= split)[:, None], -torch.inf)
