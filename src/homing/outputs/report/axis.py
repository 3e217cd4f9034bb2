"""The scale behind the small charts that stand inside tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from homing.measures import Measure


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers laid out from 0 to 100 % of a table cell."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a value lies, in % from the left, kept inside the cell."""
        width = self.high - self.low
        place = (value - self.low) / width if width > 0 else 0.5
        return round(100 * min(1.0, max(0.0, place)), 2)

    def rest(self, value: float) -> float:
        """Return where a value lies, in % from the right."""
        return round(100 - self.at(value), 2)


def axis_around(values: Iterable[float | None], step: float) -> Axis:
    """Lay an axis around the values, its ends on multiples of `step`.

    Args:
        values: What has to fit; None is passed over.
        step: Distance between allowed ends, > 0.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Axis(0.0, 1.0)
    low, high = math.floor(min(known) / step) * step, math.ceil(max(known) / step) * step
    return Axis(low, high) if high > low else Axis(low - step, high + step)


def axis_of(values: Iterable[float | None], measure: Measure) -> Axis:
    """Lay an axis around values of a figure: a share has no more than 1, and nothing has less than 0."""
    axis = axis_around(values, 0.05)
    return Axis(max(0.0, axis.low), axis.high if measure.falls else min(1.0, axis.high))
