"""Folds of the target: the one way in which labelled target images are split, for judging and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from homing.errors import DataError


def held_out_folds(labels: Tensor, folds: int, seed: int) -> Iterator[Tensor]:
    """The held-out rows of each fold; sizes differ by one at most, and so do a class's rows in them.

    Args:
        labels: int64 [n].
        folds: At least 2.
        seed: Of the shuffle.

    Yields:
        int64 rows, every row in exactly one fold.

    Raises:
        DataError: There are fewer images than folds.
    """
    if len(labels) < folds:
        count, fewer = len(labels), f" or set folds to at most {len(labels)}" if len(labels) > 1 else ""
        raise DataError(
            f"The target has {count} labelled image{'s' * (count != 1)}, fewer than the {folds} folds that it is to be "
            f"split into: label more images{fewer}."
        )
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # Dealt out class by class, like cards: no fold gets two of a class before every fold had one.
    for fold in range(folds):
        yield by_class[fold::folds]


def shuffled_folds(num_rows: int, num_folds: int, seed: int) -> Tensor:
    """`[N]` uint8, the fold of each row; sizes differ by one at most."""
    shuffled = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    return (shuffled % num_folds).to(torch.uint8)


_CELL = 1e-3  # of the spread: wide enough for the rounding of another batch, too narrow for another image
_MIXERS = (
    -7046029254386353131,
    -4658895280553007687,
    -7723592293110705685,
)  # odd: no two cells meet by a common factor


def directions_of_images(width: int, seed: int) -> Tensor:
    """`[width, 3]` that tell one image's features from another's, see `folds_of_images`."""
    return torch.randn(width, 3, generator=torch.Generator().manual_seed(seed))


def folds_of_images(along: Tensor, num_folds: int, seed: int) -> Tensor:
    """A fold of each row, `[N]`, none of them empty: copies of an image share the fold of the first of them.

    A fit that has seen a copy knows the row's label. Rows without a copy have a fold that does not depend on features.
    Copies are told by their features: they fall into one cell of three random directions.

    Args:
        along: `[N, 3]` features along `directions_of_images`.
        num_folds: At least 1.
        seed: Of the folds.
    """
    num_rows = len(along)
    folds = shuffled_folds(num_rows, num_folds, seed)
    spread = along.double().std(dim=0, correction=0).float()
    cells = (along / (_CELL * spread).clamp(min=torch.finfo(along.dtype).tiny)).round().long()
    # One number for three: two images meet in it about as often as they would in 2^64 boxes.
    image = (cells * torch.tensor(_MIXERS)).sum(dim=1)
    del along, cells
    order = image.argsort(stable=True)
    new = torch.ones(num_rows, dtype=torch.bool)
    new[1:] = image[order[1:]] != image[order[:-1]]
    first = order[new][new.cumsum(0) - 1]  # stable: the first of a run is the first in the pool
    shared = torch.empty_like(folds)
    shared[order] = folds[first]
    return shared if len(shared.long().bincount().nonzero()) == num_folds else folds
