"""What a pool tells by itself: its principal components, and which of its labels agree with the rest.

Nothing here has looked at a target, so it is found once, kept on disk, and good for every target and every fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from homing.errors import DataError
from homing.rates.learned.blocks import FeatureBlocks
from homing.rates.learned.consistency import Consistency, neutral_consistency, pool_consistency
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.label_by_label import pool_label_by_label
from homing.rates.learned.projection import Projection, fit_projection
from homing.rates.learned.work import ALONE, Work, reporting

WIDTH = 128
"""Principal components that probes work on."""

_PER_POOL = ("log_probability", "right", "noise", "best", "pool_probe", "probes", "fold")


@dataclass(frozen=True)
class PoolFacts:
    """What is known of a source pool before any target is looked at.

    Attributes:
        projection: To the components that every probe works on.
        consistency: Of its labels; None where labels play no part.
    """

    projection: Projection
    consistency: Consistency | None

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors by name, for safetensors."""
        found = {"matrix": self.projection.matrix, "mean": self.projection.mean}
        if self.consistency is not None:
            found |= _tensors(self.consistency)
            for label, one in enumerate(self.consistency.each):
                found |= {f"{label}/{name}": value for name, value in _tensors(one).items()}
        return {name: value.contiguous() for name, value in found.items()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> PoolFacts:
        """The opposite of `tensors`; raises KeyError where one is missing."""
        consistency = None
        if "right" in tensors:
            num_labels = sum(name.endswith("/right") for name in tensors)
            each = tuple(_consistency(tensors, f"{label}/") for label in range(num_labels))
            consistency = replace(_consistency(tensors), each=each)
        return PoolFacts(Projection(tensors["matrix"], tensors["mean"]), consistency)


def _tensors(consistency: Consistency) -> dict[str, Tensor]:
    values = {name: getattr(consistency, name) for name in _PER_POOL}
    return {name: value for name, value in values.items() if value is not None}


def _consistency(tensors: Mapping[str, Tensor], prefix: str = "") -> Consistency:
    values: dict[str, Any] = {name: tensors[prefix + name] for name in _PER_POOL if prefix + name in tensors}
    return Consistency(**values)


def pool_facts(
    features: Tensor | FeatureBlocks,
    labels: Tensor | None,
    num_classes: int,
    *,
    sets: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    device: torch.device | str = "cpu",
    together: bool = False,
) -> PoolFacts:
    """Find what a pool tells by itself.

    Args:
        features: `[N, D]` of the pool, in memory or in blocks.
        labels: `[N]` int64; None where they play no part, and the components alone are found.
        num_classes: C.
        sets: As `Evidence.source_sets`.
        seed: Of the cross-fits.
        progress: Called with the share done, 0..1; what it raises ends the work.
        device: Where matrix products of many rows run.
        together: Whether all processes of the group call this with the same arguments; they share what looks at every
            row.

    Raises:
        DataError: As `Evidence`.
    """
    work = reporting(progress, device, together=together)
    return find_pool_facts(features, labels, num_classes, seed, work, sets=sets)


def find_pool_facts(
    features: Tensor | FeatureBlocks,
    labels: Tensor | None,
    num_classes: int,
    seed: int,
    work: Work = ALONE,
    *,
    sets: Tensor | None = None,
) -> PoolFacts:
    """`pool_facts` as a part of longer work."""
    work.tick()
    projection = fit_projection(features, WIDTH)
    if labels is None:
        return PoolFacts(projection, None)
    # A target is no part of it; evidence needs one, so a row of the pool stands in and is never asked.
    blocks = features[:1] if isinstance(features, Tensor) else features.rows(slice(0, 1))
    stand_in = None if sets is None else sets[:1]
    pool = Evidence(features, labels, blocks, labels[:1], num_classes, source_sets=sets, target_sets=stand_in)
    pool, part = pool.projected_by(projection), work.part(0.05, 1)
    if sets is not None:
        return PoolFacts(projection, pool_label_by_label(pool, seed, part))
    found = pool_consistency(pool.within_source_classes(), seed, part)
    return PoolFacts(projection, found.spread_over(pool.source_classes, num_classes))


def consistency_of(facts: PoolFacts, labels: Tensor, num_classes: int) -> Consistency:
    """What the pool tells of its labels; all right where they play no part.

    Raises:
        DataError: The facts are of another pool.
    """
    if facts.consistency is None:
        return neutral_consistency(labels, num_classes)
    found = len(facts.consistency.right), len(facts.consistency.noise)
    if found != (len(labels), num_classes):
        raise DataError(
            f"What is known of the pool is of {found[0]} rows and {found[1]} classes, this pool has {len(labels)} rows "
            f"and {num_classes} classes: find it anew."
        )
    return facts.consistency
