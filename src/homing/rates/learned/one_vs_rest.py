"""Rows of several labels: one logistic regression a label, and the groups that such rows are balanced in.

Letters as in `probe.py`: N rows, D columns of features, C labels, S weightings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from homing.rates.learned.probe import fit_probes
from homing.rates.learned.work import ALONE, Work


def rarest_labels(sets: Tensor, counts: Tensor) -> Tensor:
    """The group of each row: the one of its labels that the fewest rows of the source have; C for rows without any.

    What balances, draws or deals out rows class by class does so by these groups: a row belongs to one of them, and a
    rare label is never lost among the rows that carry it (as in iterative stratification, Sechidis et al. 2011).

    Args:
        sets: `[M, C]` bool.
        counts: `[C]` rows of the source that have each label.

    Returns:
        `[M]` int64 in 0..C.
    """
    num_labels = sets.shape[1]
    place = counts.argsort(stable=True).argsort()  # 0: the rarest
    order = torch.where(sets, place, num_labels)
    found = order.argmin(dim=1)
    return torch.where(sets.any(dim=1), found, num_labels)


def fit_one_vs_rest(
    features: Tensor,
    sets: Tensor,
    row_weights: Tensor,
    *,
    ridge: float,
    start: Tensor | None = None,
    work: Work = ALONE,
    **how: Any,
) -> Tensor:
    """Minimise the weighted binary cross entropy of each label by itself; arguments as for `fit_probes`.

    Args:
        features: `[N, D]`, the last column constant 1.
        sets: `[N, C]` bool, which labels each row has.
        row_weights: `[S, N]`.
        ridge: Penalty, of a probe of two classes.
        start: `[S, D, C]` or `[1, D, C]` logits' weights to start from; zeros where not given.
        work: Told of, and where it runs.
        how: max_steps and tolerance of `fit_probes`.

    Returns:
        `[S, D, C]` weights of the logits.
    """
    found = []
    num_labels = sets.shape[1]
    for label in range(num_labels):
        half = None if start is None else start[:, :, label : label + 1] / 2
        begin = None if half is None else torch.cat([-half, half], dim=2)
        part = work.part(label / num_labels, (label + 1) / num_labels)
        wanted = sets[:, label].long()
        probes = fit_probes(features, wanted, row_weights, 2, ridge=ridge, start=begin, work=part, **how)
        found.append(probes[:, :, 1] - probes[:, :, 0])
    return torch.stack(found, dim=2)


def set_losses(logits: Tensor, sets: Tensor) -> Tensor:
    """Loss of each row's whole set in nats: binary cross entropies `[..., M, C]`, added up over labels; `[..., M]`."""
    wanted = sets.to(logits).expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)
