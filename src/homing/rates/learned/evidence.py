"""What the scan knows about a run: frozen-backbone features and labels of both pools."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homing.errors import DataError
from homing.rates.learned.blocks import (
    ArrayFeatures,
    FeatureBlocks,
    MappedFeatures,
    as_blocks,
    check_finite,
    in_float32,
    slices,
)
from homing.rates.learned.drawing import draw_rows, fitted_rows
from homing.rates.learned.projection import Projection, fit_projection
from homing.rates.whole_numbers import whole


@dataclass(frozen=True)
class Evidence:
    """Features and labels of both pools; everything that rates can be learned from before training.

    Arrays of numpy, lists and frames of pandas are taken too; an array that is mapped from a file is read in blocks.

    Attributes:
        source_features: `[N, D]` float32 features of the source pool, or blocks of them that need not be in memory.
        source_labels: `[N]` int64, index into the run's class list.
        target_features: `[n, D]` float32 features of the labelled target.
        target_labels: `[n]` int64. Classes may be missing here.
        num_classes: Length of the run's class list.
        matches: `[N]` bool, the source row is of the target's domain. Known in simulated studies alone, and read
            by nothing but the oracle baseline.
        clean: `[N]` bool, the source row's label is right. As `matches`.
        masses: `[N]` how many rows of a larger source each row stands for; None: itself alone.
        source_sets: `[N, L]` bool, where a row may have several of L labels, or none: which it has. `source_labels` are
            groups of rows then, see `rarest_labels`. None where each row has one label.
        target_sets: `[n, L]` bool, the same of the target.

    Raises:
        DataError: Shapes disagree, a label is out of range or no whole number, a feature is not finite (of blocks: when
            they are read), or a pool is empty.
    """

    source_features: Tensor | FeatureBlocks
    source_labels: Tensor
    target_features: Tensor
    target_labels: Tensor
    num_classes: int
    matches: Tensor | None = None
    clean: Tensor | None = None
    masses: Tensor | None = None
    source_sets: Tensor | None = None
    target_sets: Tensor | None = None

    def __post_init__(self) -> None:
        whole("num_classes", self.num_classes, 1)
        for field in fields(self):
            object.__setattr__(self, field.name, _as_tensor(field.name, getattr(self, field.name)))
        _check_pool("source", self.source_features, self.source_labels, self.num_classes)
        _check_pool("target", self.target_features, self.target_labels, self.num_classes)
        widths = self.source_features.shape[1], self.target_features.shape[1]
        if widths[0] != widths[1]:
            raise DataError(
                f"Source features have {widths[0]} columns, target features {widths[1]}: take both from one model."
            )

    @property
    def num_source(self) -> int:
        """N, the number of source rows."""
        return len(self.source_labels)

    @property
    def num_target(self) -> int:
        """n, the number of target rows."""
        return len(self.target_labels)

    @property
    def mass(self) -> float:
        """Rows of the pool that the source stands for, N where it is the pool itself."""
        return float(self.num_source if self.masses is None else self.masses.sum(dtype=torch.float64))

    @property
    def held(self) -> Tensor:
        """`[N, D]` the source's features in memory: for a source that was drawn, or is small."""
        features = self.source_features
        return features if isinstance(features, Tensor) else features.rows(slice(0, len(features)))

    def block(self, rows: Tensor) -> Tensor:
        """Features `[m, D]` of rows in ascending order, `[m]` int64.

        Raises:
            DataError: Some are not finite.
        """
        first, end = int(rows[0]), int(rows[-1]) + 1
        together = end - first == len(rows)
        block = as_blocks(self.source_features).rows(slice(first, end) if together else rows)
        check_finite(block, "source", rows=rows)
        return block

    def with_target(self, rows: Tensor) -> Evidence:
        """The same source beside a part of the target: what a fold may see.

        Args:
            rows: `[n]` bool or `[m]` int64, the target rows to keep.
        """
        return replace(
            self,
            target_features=self.target_features[rows],
            target_labels=self.target_labels[rows],
            target_sets=None if self.target_sets is None else self.target_sets[rows],
        )

    def of_labels(self, labels: Tensor) -> Evidence:
        """The same rows with some of their labels alone, `[l]` int64, where they may have several."""
        if self.source_sets is None or self.target_sets is None:
            return self
        return replace(self, source_sets=self.source_sets[:, labels], target_sets=self.target_sets[:, labels])

    @cached_property
    def source_classes(self) -> Tensor:
        """`[K]` int64, ascending: classes that the source has rows of; all of them but for those only in the target."""
        return torch.bincount(self.source_labels, minlength=self.num_classes).nonzero().flatten()

    def known(self, labels: Tensor, seen: Tensor) -> Tensor:
        """`[m]` bool, of which labels `[m]` there are source rows, or target images among those seen, `[n]` bool."""
        return torch.isin(labels, torch.cat([self.source_classes, self.target_labels[seen]]))

    def within_source_classes(self) -> Evidence:
        """The same without classes that only the target has, and numbered anew; itself where there are none.

        Where the target has no image of the source's classes, its images stay, under a class of no meaning.
        """
        classes = self.source_classes
        if len(classes) == self.num_classes:
            return self
        shared = torch.isin(self.target_labels, classes)
        if not shared.any():
            shared = torch.ones_like(shared)
        return replace(
            self.with_target(shared),
            source_labels=torch.searchsorted(classes, self.source_labels),
            target_labels=torch.searchsorted(classes, self.target_labels[shared]).clamp(max=len(classes) - 1),
            num_classes=len(classes),
        )

    def with_source(self, rows: Tensor, masses: Tensor | None) -> Evidence:
        """Some source rows, in memory, beside the same target.

        Args:
            rows: `[m]` int64.
            masses: `[m]` rows of the pool that each of them stands for.
        """
        return replace(
            self,
            source_features=as_blocks(self.source_features).rows(rows),
            source_labels=self.source_labels[rows],
            matches=None if self.matches is None else self.matches[rows],
            clean=None if self.clean is None else self.clean[rows],
            masses=masses,
            source_sets=None if self.source_sets is None else self.source_sets[rows],
        )

    def projected(self, width: int) -> Evidence:
        """The same evidence on the source's leading principal components, see `fit_projection`."""
        return self.projected_by(self.projection(width))

    def projected_by(self, projection: Projection) -> Evidence:
        """The same evidence through a projection that is known already; a large source block by block, when asked."""
        mapped = MappedFeatures(as_blocks(self.source_features), projection, projection.width)
        source: Tensor | FeatureBlocks = mapped
        if self.num_source <= fitted_rows(1):
            source = torch.cat([mapped.rows(part) for part in slices(self.num_source)])
        return replace(self, source_features=source, target_features=projection(self.target_features))

    def projection(self, width: int) -> Projection:
        """What `projected` projects by."""
        return fit_projection(self.source_features, width)

    def drawn(
        self, num_rows: int, *, by: Tensor | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Evidence]:
        """Rows that stand for the source, and the evidence of them in memory; see `draw_rows`.

        Args:
            num_rows: About how many rows to draw; all, as they are, where there are no more.
            by: `[N]` what rows of a class are ordered by.
            weights: `[N]` how much likelier one row is drawn than another of its class.
        """
        if self.num_source <= num_rows:
            return torch.arange(self.num_source), replace(self, source_features=self.held)
        rows, masses = draw_rows(
            self.source_labels, self.num_classes, num_rows, by=by, weights=weights, masses=self.masses
        )
        return rows, self.with_source(rows, masses)

    def thinned(self, num_rows: int, by: Tensor) -> Evidence:
        """A smaller source that keeps, by its masses, every class and the distribution of a descriptor in it.

        Args:
            num_rows: About how many rows to keep; all where there are no more.
            by: `[N]` the descriptor.
        """
        return self.drawn(num_rows, by=by)[1]


def _as_tensor(name: str, given: Any) -> Any:
    """Numbers of any kind as a tensor on the CPU: labels int64, features of float32 or less; blocks as they are."""
    try:
        if name.endswith("labels"):
            return _as_positions(name, given)
        if name.endswith("features"):
            return _as_features(given)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are no numbers, as many for each row ({error})") from error
    return torch.from_numpy(np.array(given)) if isinstance(given, np.ndarray | list | tuple) else given


def _as_positions(name: str, given: Any) -> Tensor:
    found = given if isinstance(given, Tensor) else np.array(given)
    if not str(found.dtype).removeprefix("torch.").startswith(("int", "uint")):
        raise DataError(
            f"{name} are {found.dtype}; give positions in the list of classes, such as np.unique(labels,"
            " return_inverse=True)[1] makes of them"
        )
    return torch.as_tensor(found).detach().cpu().long()


def _as_features(given: Any) -> Tensor | FeatureBlocks:
    if isinstance(given, np.memmap):
        return ArrayFeatures(given)
    if hasattr(given, "rows") and not hasattr(given, "to_numpy"):  # which frames of other packages have
        blocks: FeatureBlocks = given
        return blocks
    found = given.detach().cpu() if isinstance(given, Tensor) else in_float32(given)
    return found.float() if found.dtype == torch.float64 else found


def _check_pool(role: str, features: Tensor | FeatureBlocks, labels: Tensor, num_classes: int) -> None:
    shape = tuple(features.shape)
    if len(shape) != 2 or labels.ndim != 1 or shape[0] != len(labels):
        raise DataError(
            f"The {role} pool has features of shape {shape} and labels of shape {tuple(labels.shape)}; "
            "expected [rows, columns] and [rows]."
        )
    if len(labels) == 0:
        raise DataError(f"The {role} pool is empty: rates need at least one labelled sample on each side.")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise DataError(f"The {role} pool has labels outside 0..{num_classes - 1}: map both pools to one class list.")
    if isinstance(features, Tensor):
        check_finite(features, role)
