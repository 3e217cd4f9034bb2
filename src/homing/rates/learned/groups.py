"""Groups of classes that are judged by themselves, where there are too many to be judged together.

The numbers that the judge decides are shared by all classes, so that some of the classes can speak for all. What a
probe of all of them costs grows with classes times rows; groups bound both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from homing.rates.learned.balance import class_sums
from homing.rates.learned.drawing import draw_rows
from homing.rates.learned.evidence import Evidence

GROUP_CLASSES = 64
"""Classes in a group at most; a run of no more is judged as a whole."""
GROUP_ROWS = 5_000
"""Source rows that a group's probes are fitted on."""
JUDGED_LABELS = 16
"""Labels that settings are judged by at most, where an image may have several: each costs a probe of its own."""
MOST_GROUPS = 4
ENOUGH_IMAGES = 400
"""Target images after which no further group is judged: a few dozen decide where there are few classes."""


@dataclass(frozen=True)
class Group:
    """Some of the classes, and who speaks for them.

    Attributes:
        classes: `[G]` int64, ascending.
        rows: `[M]` int64, source rows of these classes; None: all.
        masses: `[M]` rows of the pool that each of them stands for.
        targets: `[m]` int64, target images of these classes.
    """

    classes: Tensor
    rows: Tensor | None
    masses: Tensor | None
    targets: Tensor

    def labels(self, evidence: Evidence) -> Tensor:
        """`[m]` int64, labels of the target images in 0..G-1; where an image may have several, `[m, G]` bool."""
        if evidence.target_sets is not None:
            return evidence.target_sets[self.targets][:, self.classes]
        return torch.searchsorted(self.classes, evidence.target_labels[self.targets])

    def of(
        self, evidence: Evidence, seen: Tensor, rates: Tensor, target_weights: Tensor
    ) -> tuple[Evidence, Tensor, Tensor]:
        """What a fold's candidates are fitted on: evidence of the group, weights of its target images, rates.

        Args:
            evidence: Both pools.
            seen: `[n]` bool, target images that the fold may see.
            rates: `[S, N]` as the fold found them.
            target_weights: `[S]`.
        """
        if self.rows is None:
            return evidence.with_target(seen).of_labels(self.classes), target_weights, rates
        num_classes, own = evidence.num_classes, evidence.source_labels
        part = evidence.with_source(self.rows, self.masses)
        inside = self.targets[seen[self.targets]]
        # Each class keeps the weight that it has in the pool: few rows of it would add up to a little more, or less.
        whole_sums = class_sums(rates, own, num_classes, evidence.masses)
        sums = class_sums(rates[:, self.rows], part.source_labels, num_classes, self.masses)
        factor = torch.where(sums > 0, whole_sums / sums.clamp(min=1e-300), 1.0).float()
        group = replace(
            part,
            source_labels=torch.searchsorted(self.classes, part.source_labels),
            target_features=evidence.target_features[inside],
            target_labels=torch.searchsorted(self.classes, evidence.target_labels[inside]),
            num_classes=len(self.classes),
        )
        return group, target_weights, rates[:, self.rows] * factor[:, part.source_labels]


def whole(evidence: Evidence) -> Group:
    """All classes as one group; where an image may have several labels, those that the target has most of."""
    classes = torch.arange(evidence.num_classes)
    if evidence.target_sets is not None:
        classes = evidence.target_sets.sum(dim=0).argsort(descending=True, stable=True)[:JUDGED_LABELS].sort().values
    return Group(classes, None, None, torch.arange(evidence.num_target))


def groups_of(evidence: Evidence, weights: Tensor) -> tuple[Group, ...]:
    """The groups that a source of many classes is judged in.

    Classes of the source with most target images come first, and none further once `ENOUGH_IMAGES` have been judged. A
    target of few classes is judged among others of the pool.

    Args:
        evidence: Both pools, the source in memory.
        weights: `[N]` how much likelier one source row is taken than another of its class.

    Returns:
        One group of all classes where there are no more than `GROUP_CLASSES`.
    """
    if evidence.num_classes <= GROUP_CLASSES or evidence.target_sets is not None:
        return (whole(evidence),)
    images = torch.bincount(evidence.target_labels, minlength=evidence.num_classes)
    rows = torch.bincount(evidence.source_labels, minlength=evidence.num_classes)
    order = rows.argsort(descending=True, stable=True)
    order = order[images[order].argsort(descending=True, stable=True)]
    order = order[rows[order] > 0]  # classes that only the target has say least of the source
    present = int((images[order] > 0).sum())
    reached = images[order].cumsum(0)
    number = 1
    while (
        number < MOST_GROUPS
        and number * GROUP_CLASSES < present
        and reached[number * GROUP_CLASSES - 1] < ENOUGH_IMAGES
    ):
        number += 1
    chosen = order[: min(number * GROUP_CLASSES, max(GROUP_CLASSES, present))].sort().values
    return tuple(_group(evidence, classes, weights) for classes in torch.tensor_split(chosen, number))


def _group(evidence: Evidence, classes: Tensor, weights: Tensor) -> Group:
    inside = torch.isin(evidence.source_labels, classes).nonzero().flatten()
    masses = torch.ones(len(inside)) if evidence.masses is None else evidence.masses[inside]
    if len(inside) > GROUP_ROWS:
        drawn, masses = draw_rows(
            torch.searchsorted(classes, evidence.source_labels[inside]),
            len(classes),
            GROUP_ROWS,
            by=weights[inside],
            weights=weights[inside],
            masses=masses,
        )
        inside = inside[drawn]
    targets = torch.isin(evidence.target_labels, classes).nonzero().flatten()
    return Group(classes, inside, masses, targets)
