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
        raise DataError(
            f"The target has {len(labels)} labelled images, fewer than the {folds} folds that judge the rates: "
            f"label more images or set folds to at most {len(labels)}."
        )
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # Dealt out class by class, like cards: no fold gets two of a class before every fold had one.
    for fold in range(folds):
        yield by_class[fold::folds]
