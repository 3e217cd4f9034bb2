"""Principal components of the source: what every probe works on.

Fitted on the source alone, so that no fold of the target is seen before its time. In float64 and without directions
that hold nothing but rounding, so that neither the number of threads nor the size of blocks can be seen in the rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from homing.errors import DataError
from homing.rates.learned.blocks import FeatureBlocks, as_blocks, check_finite, slices

FITTED_ROWS = 65_536
"""Rows that mean and covariance are taken over, at even steps; all where there are no more."""

_LEAST_VARIANCE = 1e-8  # of the largest: what is below holds rounding of the features, or nothing
_ROUNDING = torch.finfo(torch.float32).eps  # of its mean: a column that varies by less holds nothing else
_LEAST_SPREAD = 1e-30  # what is smaller cannot be stretched to 1 within float32
_WIDEST = 12.0  # spreads of the median column: none counts as if it were wider (docs/decisions/likeness.md)
_SOLVERS = ("numpy", "svd")


@dataclass(frozen=True)
class Projection:
    """`(features - mean) @ matrix`.

    Attributes:
        matrix: `[D, width]`.
        mean: `[D]`.
    """

    matrix: Tensor
    mean: Tensor

    @property
    def width(self) -> int:
        """Columns that come out."""
        return self.matrix.shape[1]

    @property
    def offset(self) -> Tensor:
        """`[width]`; the projection is `features @ matrix + offset` too."""
        offset: Tensor = -(self.mean.double() @ self.matrix.double()).float()
        return offset

    def __call__(self, features: Tensor) -> Tensor:
        """`[M, D]` to `[M, width]`."""
        # Centred first: a mean that is large beside the spread would cost digits in the product.
        return (features - self.mean) @ self.matrix


def fit_projection(features: Tensor | FeatureBlocks, width: int) -> Projection:
    """Leading principal components of the source, scaled to mean square 1.

    Args:
        features: `[N, D]`.
        width: Components to keep; fewer where the features have fewer columns, or fewer that vary.

    Raises:
        DataError: A feature is not finite.
    """
    mean, covariance = _moments(as_blocks(features))
    spreads = covariance.diagonal().sqrt()
    varies = spreads > _ROUNDING * mean.abs()
    kept_share = _share_kept_of_wide_columns(spreads, varies)
    covariance = covariance * kept_share * kept_share[:, None]
    variances, directions = _components(covariance, varies)
    kept = variances[-width:] > _LEAST_VARIANCE * variances[-1]
    kept[-1] = True  # features that are all alike keep one direction, of zeros
    variances, directions = variances[-width:][kept], directions[:, -width:][:, kept]
    # Of either sign a direction is the same one: the largest entry says which is meant.
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    # The mean square of all columns that were asked for: leaving out empty ones does not stretch the others.
    spread = (variances.sum() / min(width, len(covariance))).sqrt()
    scale = torch.where(spread > 0, spread.clamp(min=_LEAST_SPREAD), 1.0)
    return Projection((directions * kept_share[:, None] / scale).float(), mean.float())


def _share_kept_of_wide_columns(spreads: Tensor, varies: Tensor) -> Tensor:
    """`[D]` in 0..1 that columns are multiplied by: 1 but for those that are far wider than the median one.

    A few columns of huge scale, as some transformers have, would own the mean square, and every penalty would flatten
    what all the others say.
    """
    usual = spreads[varies].median() if varies.any() else spreads.new_zeros(())
    return torch.where(spreads > _WIDEST * usual, _WIDEST * usual / spreads.clamp(min=_LEAST_SPREAD), 1.0)


def _moments(features: FeatureBlocks) -> tuple[Tensor, Tensor]:
    """Mean `[D]` and covariance `[D, D]`, float64, over rows at even steps."""
    num_rows, width = features.shape
    count = min(num_rows, FITTED_ROWS)
    rows = torch.arange(count) * num_rows // count
    total, products, centre = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width).double(), None
    for part in slices(count, 4096):
        block = features.rows(rows[part])
        check_finite(block, "source", rows=rows[part])
        values = block.double()
        centre = values.mean(dim=0) if centre is None else centre
        values -= centre  # near enough to the mean that products keep their digits
        total += values.sum(dim=0)
        products.addmm_(values.T, values)
    assert centre is not None
    shift = total / count
    return centre + shift, products / count - torch.outer(shift, shift)


def _components(covariance: Tensor, varies: Tensor) -> tuple[Tensor, Tensor]:
    """Variances `[D]`, ascending, and directions `[D, D]`; columns that do not vary are left out of the search."""
    variances, directions = torch.zeros(len(covariance)).double(), torch.eye(len(covariance)).double()
    if varies.any():
        found, vectors = _eigenvectors(covariance[varies][:, varies])
        count = len(found)
        inner = torch.zeros(len(covariance), count).double()
        inner[varies] = vectors
        directions = torch.cat([directions[:, ~varies], inner], dim=1)
        variances = torch.cat([torch.zeros(len(covariance) - count).double(), found.clamp(min=0)])
    return variances, directions


def _eigenvectors(covariance: Tensor) -> tuple[Tensor, Tensor]:
    try:
        variances, directions = torch.linalg.eigh(covariance)
        return variances, directions
    except RuntimeError:  # divide and conquer gives up on some matrices that another way solves
        pass
    for solver in _SOLVERS:
        try:
            if solver == "numpy":
                found, vectors = np.linalg.eigh(covariance.numpy())
            else:
                vectors, values, _ = np.linalg.svd(covariance.numpy())
                found, vectors = values[::-1].copy(), vectors[:, ::-1].copy()
            return torch.from_numpy(found), torch.from_numpy(vectors)
        except np.linalg.LinAlgError:
            continue
    raise DataError(
        f"The covariance of the source's {len(covariance)} features has no eigenvectors that can be computed: the "
        "features are extreme; look at their range, or scan with another backbone or in fp32."
    )
