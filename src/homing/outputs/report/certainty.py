"""The report's view of how sure the model is: accuracy against coverage, and the temperature of its probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from homing.outputs.report.data import mapping, number
from homing.outputs.report.figures import Picture, coverage_figure


@dataclass(frozen=True)
class Point:
    """Accuracy on the surest images, and its interval; coverage is their share of all."""

    coverage: float
    num_images: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Certainty:
    """What `results.json` says of rejection and calibration.

    Attributes:
        picture: The curve.
        points: Some places of it.
        temperature: Of the model's probabilities; None where none was fitted.
        nll: Of held-out folds at the temperature of the others.
        ece: The same.
        reason: Why there is no temperature.
    """

    picture: Picture
    points: tuple[Point, ...]
    temperature: float | None
    nll: float | None
    ece: float | None
    reason: str


def certainty(results: dict[str, Any]) -> Certainty | None:
    """What there is to show; None where it was not measured."""
    found, calibrated = mapping(results.get("rejection")), mapping(results.get("calibration"))
    given = found.get("curve")
    pairs = [pair for pair in given if isinstance(pair, list) and len(pair) == 2] if isinstance(given, list) else []
    curve = [(x, y) for x, y in ((number(a), number(b)) for a, b in pairs) if x is not None and y is not None]
    if len(curve) < 2:
        return None
    coverage, accuracy = np.array(curve).T
    rows = found.get("points")
    points = [_point(mapping(row)) for row in rows] if isinstance(rows, list) else []
    return Certainty(
        coverage_figure("rejection", coverage, accuracy, number(found.get("aurc"))),
        tuple(point for point in points if point is not None),
        temperature=number(calibrated.get("temperature")),
        nll=number(calibrated.get("nll")),
        ece=number(calibrated.get("ece")),
        reason=str(calibrated.get("reason") or ""),
    )


def _point(row: dict[str, Any]) -> Point | None:
    interval = row.get("accuracy_interval")
    ends = interval if isinstance(interval, list) and len(interval) == 2 else [None, None]
    values = [number(value) for value in (row.get("coverage"), row.get("num_images"), row.get("accuracy"), *ends)]
    known = [value for value in values if value is not None]
    return Point(*known) if len(known) == len(values) else None
