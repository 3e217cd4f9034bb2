"""Learning curves: from the rows of `metrics.jsonl` to few-hundred-point lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from homing.outputs.report.data import number
from homing.outputs.report.figures import Line, Picture, line_figure
from homing.outputs.titles import title_of

_MAX_POINTS = 300
_MAX_METHODS = 4


def curves(metrics: list[dict[str, Any]], method: str, others: Sequence[str]) -> list[Picture]:
    """Draw loss, accuracy and effective sample size over the steps; charts without a value are left out.

    Args:
        metrics: Rows of kind "train".
        method: The run's own method.
        others: Names of the baselines in the order of the comparison; folds have rows of their own, and no line.
    """
    there = dict.fromkeys(str(row.get("method", method)) for row in metrics)
    if method not in there:
        method = next(iter(there), method)
    methods = [name for name in others if name in there and name != method]
    own = [row for row in metrics if str(row.get("method", method)) == method]
    found = (
        ("loss", "Loss", "loss", "{:.3g}", _loss(own)),
        ("accuracy", "Accuracy in training", "", "{:.1%}", _accuracy(metrics, own, methods)),
        ("effective", "Effective sample size", "source images", "{:,.0f}", _effective_size(own)),
    )
    drawn = [chart for chart in found if chart[-1]]
    return [
        line_figure(key, title, lines, y_label, pattern, is_small=len(drawn) == 3)
        for key, title, y_label, pattern, lines in drawn
    ]


def constant_size(metrics: list[dict[str, Any]], method: str) -> float | None:
    """The effective sample size where it was the same from the first step to the last; None where it moved."""
    own = [row for row in metrics if str(row.get("method", method)) == method]
    sizes = [size for row in own if (size := number(row.get("effective_sample_size"))) is not None]
    return sizes[-1] if sizes and not _effective_size(own) else None


def _loss(own: list[dict[str, Any]]) -> list[Line]:
    names = (
        ("source_loss", "source, weighted by rate"),
        ("target_loss", "target"),
        ("loss", "what is minimised"),
        ("unlabelled_loss", "unlabelled, under guesses"),
    )
    return _known(_line(own, column, label, series) for series, (column, label) in enumerate(names))


def _accuracy(metrics: list[dict[str, Any]], own: list[dict[str, Any]], methods: Sequence[str]) -> list[Line]:
    lines = [
        _line(own, "source_accuracy", "homing, source images", 0),
        _line(own, "target_accuracy", "homing, target images", 1),
    ]
    for series, name in enumerate(methods[:_MAX_METHODS], start=2):
        rows = [row for row in metrics if str(row.get("method")) == name]
        lines.append(_line(rows, "target_accuracy", title_of(name), series, faint=True))
    return _known(lines)


def _effective_size(own: list[dict[str, Any]]) -> list[Line]:
    line = _line(own, "effective_sample_size", "effective sample size", 0)
    if line is None or float(np.ptp(line.y)) < 1e-9 + 1e-6 * abs(float(line.y[0])):
        return []  # a flat line is a number, and that stands at the top of the page
    return [line]


def _known(lines: Iterable[Line | None]) -> list[Line]:
    return [line for line in lines if line is not None]


def _line(rows: list[dict[str, Any]], column: str, label: str, series: int, *, faint: bool = False) -> Line | None:
    points = [
        (step, value)
        for index, row in enumerate(rows)
        if (value := number(row.get(column))) is not None and (step := number(row.get("step", index))) is not None
    ]
    if len(points) < 2:
        return None  # one point is no curve
    parts = np.array_split(np.array(sorted(points)), min(len(points), _MAX_POINTS))
    means = np.array([part.mean(axis=0) for part in parts])
    return Line(label, means[:, 0], means[:, 1], series, faint)
