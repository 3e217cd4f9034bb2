"""What the scan knows about a run: frozen-backbone features and labels of both pools."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from homing.errors import DataError


@dataclass(frozen=True)
class Evidence:
    """Features and labels of both pools; everything that rates can be learned from before training.

    Attributes:
        source_features: `[N, D]` float32 features of the source pool.
        source_labels: `[N]` int64, index into the run's class list.
        target_features: `[n, D]` float32 features of the labelled target.
        target_labels: `[n]` int64. Classes may be missing here.
        num_classes: Length of the run's class list.
        matches: `[N]` bool, the source row is of the target's domain. Known in simulated studies alone, and read
            by nothing but the oracle baseline.
        clean: `[N]` bool, the source row's label is right. As `matches`.

    Raises:
        DataError: Shapes disagree, a label is out of range, a feature is not finite, or a pool is empty.
    """

    source_features: Tensor
    source_labels: Tensor
    target_features: Tensor
    target_labels: Tensor
    num_classes: int
    matches: Tensor | None = None
    clean: Tensor | None = None

    def __post_init__(self) -> None:
        _check_pool("source", self.source_features, self.source_labels, self.num_classes)
        _check_pool("target", self.target_features, self.target_labels, self.num_classes)
        widths = self.source_features.shape[1], self.target_features.shape[1]
        if widths[0] != widths[1]:
            raise DataError(
                f"Source features have {widths[0]} columns, target features {widths[1]}: scan both with one model."
            )

    @property
    def num_source(self) -> int:
        """N, the number of source rows."""
        return len(self.source_labels)

    @property
    def num_target(self) -> int:
        """n, the number of target rows."""
        return len(self.target_labels)

    def with_target(self, rows: Tensor) -> Evidence:
        """The same source beside a part of the target: what a fold may see.

        Args:
            rows: `[n]` bool or `[m]` int64, the target rows to keep.
        """
        return replace(self, target_features=self.target_features[rows], target_labels=self.target_labels[rows])

    def projected(self, width: int) -> Evidence:
        """The same evidence on the source's leading principal components, scaled to mean square 1.

        Fitted on the source alone, so that no fold of the target is seen before its time.

        Args:
            width: Components to keep; fewer where the features have fewer columns.
        """
        return self.projected_by(self.projection(width))

    def projected_by(self, projection: tuple[Tensor, Tensor]) -> Evidence:
        """The same evidence through a projection that is known already."""
        matrix, offset = projection
        return replace(
            self,
            source_features=self.source_features @ matrix + offset,
            target_features=self.target_features @ matrix + offset,
        )

    def projection(self, width: int) -> tuple[Tensor, Tensor]:
        """Matrix `[D, width]` and offset `[width]` of `projected`: features @ matrix + offset."""
        mean = self.source_features.mean(dim=0)
        # Without a centred copy: the features of a large pool are held in memory once.
        covariance = self.source_features.T @ self.source_features / self.num_source - torch.outer(mean, mean)
        try:
            variances, directions = torch.linalg.eigh(covariance)
        except RuntimeError:  # most features are 0 throughout: a backbone far from its image size
            variances, directions = (part.float() for part in torch.linalg.eigh(covariance.double()))
        kept = directions[:, -width:]
        scale = variances[-width:].mean().clamp(min=torch.finfo(torch.float32).tiny).sqrt()
        return kept / scale, -(mean @ kept) / scale

    def thinned(self, num_rows: int, by: Tensor) -> Evidence:
        """A smaller source that keeps every class's share and the distribution of a descriptor in it.

        Rows are taken at even steps along the source sorted by class and descriptor (systematic sampling), so that
        a rare kind of rows is neither lost nor enriched by chance.

        Args:
            num_rows: About how many rows to keep; all where there are no more.
            by: `[N]` the descriptor.
        """
        if self.num_source <= num_rows:
            return self
        order = by.argsort()
        order = order[self.source_labels[order].argsort(stable=True)]
        rows = order[torch.linspace(0, self.num_source - 1, num_rows).round().long()]
        return replace(
            self,
            source_features=self.source_features[rows],
            source_labels=self.source_labels[rows],
            matches=None if self.matches is None else self.matches[rows],
            clean=None if self.clean is None else self.clean[rows],
        )


def _check_pool(role: str, features: Tensor, labels: Tensor, num_classes: int) -> None:
    if features.ndim != 2 or labels.ndim != 1 or len(features) != len(labels):
        raise DataError(
            f"The {role} pool has features of shape {tuple(features.shape)} and labels of shape {tuple(labels.shape)}; "
            "expected [rows, columns] and [rows]."
        )
    if len(labels) == 0:
        raise DataError(f"The {role} pool is empty: rates need at least one labelled image on each side.")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise DataError(f"The {role} pool has labels outside 0..{num_classes - 1}: map both pools to one class list.")
    broken = ~torch.isfinite(features).all(dim=1)
    if broken.any():
        row = int(broken.nonzero()[0])
        raise DataError(
            f"{int(broken.sum())} rows of the {role} features are not finite (first: row {row}): "
            "look at those images, or scan in fp32."
        )
