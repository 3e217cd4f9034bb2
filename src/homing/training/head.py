"""The head: its start from the probe that fits the scanned features best, and two sets of classes side by side."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from homing.models.parts import classifier_of
from homing.pools.order import Rows
from homing.rates.learned.labelled import Labelled, ManyLabels, OneLabel
from homing.rates.learned.probe import with_bias
from homing.rates.learned.work import ALONE, Work
from homing.training.penalty import held_out_penalty
from homing.training.plan import Phase

_MAX_ROWS, _MAX_ROWS_OF_HEAD = 20_000, 30_000
_TO_THE_END = {"max_steps": 60, "tolerance": 4e-4}
"""Of a fit that no fine-tuning of layers follows."""
_SEARCH = 0.7  # share of the time that is spent before it
HEAD_RIDGE = 0.5
"""Penalty of the probe that a fine-tuning of layers starts from, on features of unit mean square: with less the start
is better and the end worse, for what a head knows by heart no layer learns (docs/decisions/training.md)."""


class Features(Protocol):
    """Features by row."""

    def rows(self, rows: Tensor) -> Tensor:
        """float32 [m, D] of rows int64 [m]."""
        ...


@torch.no_grad()
def probe_head(
    model: nn.Module,
    features: Features,
    rows: Rows,
    labels: Tensor,
    phase: Phase,
    ridge: float | None = HEAD_RIDGE,
    split: int | None = None,
    sets: Tensor | None = None,
    work: Work = ALONE,
) -> None:
    """Set the model's linear head to the logistic regression of the plan.

    It keeps the backbone from being distorted by a random head (Kumar et al. 2022).

    Args:
        model: Its head is overwritten.
        features: What the head sees, by row.
        rows: Rows of `features` that are trained on, int64 [N + n]: source, then target.
        labels: int64 [N + n].
        phase: Masses of source and target rows.
        ridge: Penalty of the probe, on features of about unit mean square; None: the one that suits left-out rows.
        split: As in `of_own_side`: each set of classes has a probe of its own, or stays as it is where no row counts.
        sets: As in `sample_losses`: each class has a probe of its own, against all others.
        work: Told of.
    """
    head = classifier_of(model)
    num_target = len(labels) - len(phase.rates)
    masses = torch.cat([phase.rates, torch.full((num_target,), float(phase.target_weight))])
    for start, end in ((0, head.out_features),) if split is None else ((0, split), (split, head.out_features)):
        counted = masses.nonzero().squeeze(1)
        if split is not None:
            counted = counted[(labels[counted] >= start) & (labels[counted] < end)]
            if not len(counted):
                continue
        counted, weights = _enough(counted, masses[counted], _MAX_ROWS_OF_HEAD if ridge is None else _MAX_ROWS)
        columns = with_bias(features.rows(torch.from_numpy(rows[counted.numpy()])))
        center = columns[:, :-1].mean(dim=0)
        columns[:, :-1] -= center
        found = labels[counted]
        labelled = OneLabel(found - start, end - start) if sets is None else ManyLabels(sets[found])
        if ridge is None:
            probe = _best_probe(labelled, columns, weights, counted >= len(phase.rates), end - start, work)
        else:
            (probe,) = labelled.fit(columns, weights[None], ridge, work=work)
        head.weight[start:end] = probe[:-1].T
        if head.bias is not None:
            head.bias[start:end] = probe[-1] - center @ probe[:-1]


def _best_probe(
    labelled: Labelled, columns: Tensor, weights: Tensor, is_target: Tensor, num_outputs: int, work: Work
) -> Tensor:
    """`[D, C]` fitted to its end, under the penalty that suits rows that are left out."""
    search, end = work.part(0, _SEARCH), work.part(_SEARCH, 1)
    penalty, start = held_out_penalty(columns[:, :-1], weights, is_target, num_outputs, labelled, search)
    begin = None if start is None else start[None]
    return labelled.fit(columns, weights[None], penalty, begin, work=end, **_TO_THE_END)[0]


def _enough(rows: Tensor, masses: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Rows enough for a start, and how much each counts: of many, some at even steps of their masses.

    A row is drawn as often as its mass says, give or take one, so that every class has its share of the draws.
    """
    if len(rows) <= most:
        return rows, masses
    reached = masses.double().cumsum(0)
    steps = (torch.arange(most, dtype=torch.float64) + 0.5) * (reached[-1] / most)
    drawn, times = torch.unique(torch.searchsorted(reached, steps), return_counts=True)
    return rows[drawn], times.float()


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
