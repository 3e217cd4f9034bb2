"""What the report says about the rates: few numbers out of a million rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from homing.outputs.report.axis import Axis
from homing.outputs.report.columns import Category, Codes, Floats, RateColumns

MAX_GROUP_ROWS = 200


@dataclass(frozen=True)
class RateSummary:
    """The rates in a handful of numbers.

    Attributes:
        num_rows: Number of source samples.
        effective_share: (Σr)² / (N Σr²), the share of the pool that effectively counts, in (0, 1].
        top_tenth_weight: Share of the total rate that the best tenth carries, in [0, 1].
        lifted_share: Share of samples above the mean rate.
        lowest: Smallest rate.
        median: Median rate.
        highest: Largest rate.
        is_uniform: Whether all rates are the same number.
    """

    num_rows: int
    effective_share: float
    top_tenth_weight: float
    lifted_share: float
    lowest: float
    median: float
    highest: float
    is_uniform: bool


@dataclass(frozen=True)
class GroupRow:
    """The rates of one class, source or group: how many samples, and how they were rated."""

    name: str
    num_samples: int
    mean: float
    median: float
    low: float  # 10th percentile
    high: float  # 90th percentile
    weight_share: float  # of the sum of all rates
    effective_share: float


@dataclass(frozen=True)
class GroupTable:
    """Rates by one column, best mean first; of very many values the best and the worst are kept.

    Attributes:
        title: Column name.
        rows: At most `MAX_GROUP_ROWS` rows.
        num_values: Distinct values in the column.
        axis: From 0 to the largest mean or 90th percentile shown.
        is_balanced: Whether all values have the same mean rate.
    """

    title: str
    rows: tuple[GroupRow, ...]
    num_values: int
    axis: Axis
    is_balanced: bool


@dataclass(frozen=True)
class LiftCurve:
    """Mean rate along one descriptor.

    Attributes:
        name: Descriptor.
        position: Middle of each bin as a share of the pool ranked by the descriptor, in (0, 1).
        mean_rate: Mean rate in the bin.
        low: 10th percentile in the bin.
        high: 90th percentile in the bin.
    """

    name: str
    position: Floats
    mean_rate: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Density:
    """Two descriptors binned together.

    Attributes:
        x_name: Descriptor along x.
        y_name: Descriptor along y.
        x_edges: Bin edges, shape (bins + 1,).
        y_edges: Bin edges, shape (bins + 1,).
        counts: Samples per bin, shape (y bins, x bins).
        mean_rate: Mean rate per bin, NaN where empty, shape (y bins, x bins).
    """

    x_name: str
    y_name: str
    x_edges: Floats
    y_edges: Floats
    counts: Floats
    mean_rate: Floats


def summarize(rate: Floats) -> RateSummary:
    """Sum up the rates.

    Args:
        rate: Rates, shape (rows,), finite and ≥ 0.
    """
    total = float(rate.sum())
    tenth = max(1, len(rate) // 10)
    best = np.partition(rate, len(rate) - tenth)[-tenth:]
    mean = total / len(rate)
    return RateSummary(
        num_rows=len(rate),
        effective_share=_effective_share(total, float((rate**2).sum()), len(rate)),
        top_tenth_weight=float(best.sum()) / total if total > 0 else 0.0,
        lifted_share=float((rate > mean * (1 + 1e-6)).mean()),
        lowest=float(rate.min()),
        median=float(np.median(rate)),
        highest=float(rate.max()),
        is_uniform=bool(np.ptp(rate) <= 1e-6 * max(1.0, abs(mean))),
    )


def _effective_share(total: float, total_square: float, count: int) -> float:
    return total**2 / (count * total_square) if total_square > 0 else 0.0


def group_table(title: str, category: Category, rate: Floats) -> GroupTable:
    """Sum up the rates by one column.

    Args:
        title: What the column is called on the page.
        category: The column, shape (rows,).
        rate: Rates, shape (rows,).
    """
    num_values = len(category.names)
    counts = np.bincount(category.codes, minlength=num_values)
    sums = np.bincount(category.codes, weights=rate, minlength=num_values)
    squares = np.bincount(category.codes, weights=rate**2, minlength=num_values)
    means = sums / np.maximum(counts, 1)
    order = np.argsort(-np.round(means, 3), kind="stable")  # equal means: by name
    if num_values > MAX_GROUP_ROWS:
        order = np.concatenate([order[: MAX_GROUP_ROWS // 2], order[-(MAX_GROUP_ROWS // 2) :]])
    members = _members(category, order)
    rows = []
    for code, group in zip(order.tolist(), members, strict=True):
        median, low, high = (float(value) for value in np.quantile(rate[group], (0.5, 0.1, 0.9)))
        weight = float(sums[code] / max(sums.sum(), 1e-12))
        effective = _effective_share(float(sums[code]), float(squares[code]), int(counts[code]))
        rows.append(
            GroupRow(category.names[code], int(counts[code]), float(means[code]), median, low, high, weight, effective)
        )
    largest = max((max(row.high, row.mean) for row in rows), default=0.0)
    is_balanced = num_values > 1 and float(np.ptp(means)) < 0.005 * float(means.max())
    return GroupTable(title, tuple(rows), num_values, Axis(0.0, largest or 1.0), is_balanced)


def _members(category: Category, wanted: Codes) -> list[Codes]:
    """Row numbers of each wanted code, out of one sort."""
    by_code = np.argsort(category.codes, kind="stable")
    sorted_codes = category.codes[by_code]
    starts = np.searchsorted(sorted_codes, wanted, side="left")
    ends = np.searchsorted(sorted_codes, wanted, side="right")
    return [by_code[start:end] for start, end in zip(starts, ends, strict=True)]


def ranked_rows(rate: Floats) -> Codes:
    """Rank all rows from the lowest to the highest rate; equal rates stand in a fixed shuffled order.

    Shuffled, because a gallery of many equal rates should show the pool and not its first folder.
    """
    shuffle = np.random.default_rng(0).permutation(len(rate))
    return np.lexsort((shuffle, rate)).astype(np.int64)


def lift_curve(name: str, values: Floats, rate: Floats, bins: int = 20) -> LiftCurve | None:
    """Average the rate along the ranks of one descriptor; None with fewer than `bins` known values."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < bins:
        return None
    ranked = rate[known[np.argsort(values[known], kind="stable")]]
    parts = np.array_split(ranked, bins)
    low, high = zip(*(np.quantile(part, (0.1, 0.9)) for part in parts), strict=True)
    return LiftCurve(
        name,
        position=(np.arange(bins) + 0.5) / bins,
        mean_rate=np.array([part.mean() for part in parts]),
        low=np.array(low),
        high=np.array(high),
    )


def density(rates: RateColumns, x_name: str, y_name: str, bins: int = 44) -> Density | None:
    """Bin two descriptors together; None when one of them is missing or constant."""
    x, y = rates.descriptors.get(x_name), rates.descriptors.get(y_name)
    if x is None or y is None:
        return None
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 2:
        return None
    x, y, rate = x[known], y[known], rates.rate[known]
    x_edges, y_edges = _edges(x, bins), _edges(y, bins)
    if x_edges is None or y_edges is None:
        return None
    x, y = np.clip(x, x_edges[0], x_edges[-1]), np.clip(y, y_edges[0], y_edges[-1])
    counts = np.histogram2d(y, x, bins=(y_edges, x_edges))[0]
    sums = np.histogram2d(y, x, bins=(y_edges, x_edges), weights=rate)[0]
    with np.errstate(invalid="ignore"):
        mean_rate = sums / counts
    return Density(x_name, y_name, x_edges, y_edges, counts, mean_rate)


def _edges(values: Floats, bins: int) -> Floats | None:
    low, high = np.quantile(values, (0.002, 0.998))  # a few far points must not squeeze the rest
    return np.linspace(low, high, bins + 1) if high > low else None
