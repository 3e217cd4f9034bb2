"""Rows of one label each, or of any number: how probes are fitted on them, and what their logits cost.

Letters as in `probe.py`: N rows, D columns of features, C outputs, S weightings.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional

from homing.rates.learned.one_vs_rest import fit_one_vs_rest, set_losses
from homing.rates.learned.probe import fit_probes


class Labelled(Protocol):
    """What N rows are labelled with."""

    def fit(self, columns: Tensor, weights: Tensor, ridge: float, start: Tensor | None = None, **how: Any) -> Tensor:
        """Probes `[S, D, C]` of columns `[N, D]` and weightings `[S, N]`; `how` as for `fit_probes`."""
        ...

    def losses(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Losses `[m]` in nats of logits `[m, C]` of the rows `[m]`."""
        ...


class OneLabel:
    """One probe of all classes, of which each row has one.

    Args:
        labels: `[N]` int64 in 0..C-1.
        num_classes: C.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.labels, self.num_classes = labels, num_classes

    def fit(self, columns: Tensor, weights: Tensor, ridge: float, start: Tensor | None = None, **how: Any) -> Tensor:
        """See `Labelled`."""
        return fit_probes(columns, self.labels, weights, self.num_classes, ridge=ridge, start=start, **how)

    def losses(self, logits: Tensor, rows: Tensor) -> Tensor:
        """See `Labelled`."""
        return functional.cross_entropy(logits, self.labels[rows], reduction="none")


class ManyLabels:
    """A probe for each label, of which a row has any number.

    Args:
        sets: `[N, C]` bool, which labels each row has.
    """

    def __init__(self, sets: Tensor) -> None:
        self.sets = sets

    def fit(self, columns: Tensor, weights: Tensor, ridge: float, start: Tensor | None = None, **how: Any) -> Tensor:
        """See `Labelled`."""
        return fit_one_vs_rest(columns, self.sets, weights, ridge=ridge, start=start, **how)

    def losses(self, logits: Tensor, rows: Tensor) -> Tensor:
        """See `Labelled`."""
        return set_losses(logits, self.sets[rows])
