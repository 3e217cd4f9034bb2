"""One epoch drawn by rates: the same rows in the same order wherever and whenever it is drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from homing.errors import DataError
from homing.rates.order import Counts, EpochOrder, resampled_counts
from homing.rates.table import RateTable

Rates = npt.NDArray[np.floating[Any]]

MANY = 1 << 24
"""Rows or visits beyond which an epoch is drawn without shuffling all of them at once (torch draws no more at all)."""
_CHUNK = 1 << 22  # rates at a time


@dataclass(frozen=True)
class EpochDraw:
    """The visits of one epoch.

    Attributes:
        order: Rows in the order of their visits.
        rates: float [N] that it was drawn by.
        digest: Of these rates: an epoch can only go on with the same.
    """

    order: EpochOrder
    rates: Rates
    digest: int


def draw_epoch(rates: Rates, num_samples: int, *, seed: int, epoch: int) -> EpochDraw:
    """Draw an epoch in which each row occurs `num_samples · rate / Σ rates` times, rounded up or down.

    Args:
        rates: float [N], checked by `as_rates`.
        num_samples: Visits in all.
        seed: Of the sampler.
        epoch: From 0.

    Raises:
        DataError: A rate is negative or not finite, or all are 0.
    """
    digest = _checked_digest(rates)
    expected = _Expected(rates, num_samples)
    streamed = max(len(rates), num_samples) > MANY
    counts = resampled_counts(expected, seed=seed, epoch=epoch, streamed=streamed)
    _settle(counts, expected, num_samples)
    return EpochDraw(EpochOrder(counts, seed=seed, epoch=epoch, streamed=streamed), rates, digest)


def as_rates(rates: Any) -> Rates:
    """Rates as a float array [N], without a copy where they are one.

    Args:
        rates: A tensor, an array, numbers, or a `RateTable`.

    Raises:
        DataError: They are no numbers, not of one dimension, or none at all.
    """
    found = rates.rates if isinstance(rates, RateTable) else rates
    try:
        if isinstance(found, Tensor):
            found = found.detach().cpu()
            found = (found if found.dtype.itemsize >= 4 else found.float()).numpy()
        array = np.asarray(found)
    except (ValueError, TypeError, NotImplementedError) as error:  # rows of many lengths; a tensor that is not dense
        raise DataError(f"rates are no numbers in one dimension ({error}); give one for each row") from error
    if array.ndim != 1 or array.dtype.kind not in "fiub" or not len(array):
        raise DataError(
            f"rates have shape {array.shape} and type {array.dtype}; give one number for each row, in one dimension"
        )
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


class _Expected:
    """Visits of rows that are asked for, float64."""

    def __init__(self, rates: Rates, num_samples: int) -> None:
        self._rates = rates
        with np.errstate(over="ignore"):
            total = float(rates.sum(dtype=np.float64))
        self._scale = num_samples / total
        if not (0 < self._scale < np.inf):
            raise DataError(f"rates sum to {total:g}, out of what float64 divides by; scale them, e.g. to a mean of 1")

    def __len__(self) -> int:
        return len(self._rates)

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float64]:
        return np.asarray(self._rates[rows].astype(np.float64) * self._scale)


def _settle(counts: Counts, expected: _Expected, num_samples: int) -> None:
    """Sums of many numbers are off by a rounding, and with them the last visit now and then: put it right, in place."""
    missing = num_samples - int(counts.sum(dtype=np.int64))
    for rows in _pieces(len(counts)):
        if not missing:
            return
        excess = counts[rows] - expected[rows]
        movable = np.flatnonzero(excess < 0 if missing > 0 else excess > 0)[: abs(missing)]
        counts[rows.start + movable] += np.sign(missing)
        missing -= int(np.sign(missing)) * len(movable)


def _checked_digest(rates: Rates) -> int:
    digest, any_counts = 0, False
    for rows in _pieces(len(rates)):
        piece = rates[rows]
        if not (np.isfinite(piece).all() and piece.min() >= 0):
            _refuse(rates)
        any_counts = any_counts or bool(piece.any())
        digest = zlib.crc32(np.ascontiguousarray(piece).data, digest)
    if not any_counts:
        raise DataError(f"all {len(rates):,} rates are 0, so that no row can be drawn; give one of them at least more")
    return digest


def _refuse(rates: Rates) -> None:
    wrong = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    raise DataError(
        f"{len(wrong):,} of {len(rates):,} rates are negative or not finite, the first of them that of row {wrong[0]}"
        f" ({rates[wrong[0]]}); rates are numbers of at least 0: set those to 0 whose rows are to be left out"
    )


def _pieces(num: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, num)) for start in range(0, num, _CHUNK))
