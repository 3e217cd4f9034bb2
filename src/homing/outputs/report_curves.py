"""Learning curves: from the rows of `metrics.jsonl` to few-hundred-point lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from homing.outputs.report_data import number
from homing.outputs.report_figures import Line, Picture, line_figure

_MAX_POINTS = 300
_MAX_METHODS = 5


def curves(metrics: list[dict[str, Any]], method: str) -> list[Picture]:
    """Draw loss, accuracy and effective sample size over the steps; charts without a value are left out.

    Args:
        metrics: Rows of kind "train".
        method: The run's own method; every other one is a baseline.
    """
    methods = list(dict.fromkeys(str(row.get("method", method)) for row in metrics))
    if method not in methods and methods:
        method = methods[0]
    own = [row for row in metrics if str(row.get("method", method)) == method]
    found = (_loss(own), _accuracy(metrics, own, method, methods), _effective_size(own))
    return [picture for picture in found if picture is not None]


def _loss(own: list[dict[str, Any]]) -> Picture | None:
    names = (("source_loss", "source (weighted by rate)"), ("target_loss", "target"), ("loss", "what is minimised"))
    lines = [
        line for series, (column, label) in enumerate(names) if (line := _line(own, column, label, series)) is not None
    ]
    if not lines:
        return None
    return line_figure("loss", "Loss", lines, "loss", _in_words(lines, "{:.3g}"))


def _accuracy(
    metrics: list[dict[str, Any]], own: list[dict[str, Any]], method: str, methods: list[str]
) -> Picture | None:
    lines = [
        _line(own, "source_accuracy", "homing, on its source images", 0),
        _line(own, "target_accuracy", "homing, on its target images", 1),
    ]
    others = [name for name in methods if name != method][:_MAX_METHODS]
    for series, name in enumerate(others, start=2):
        rows = [row for row in metrics if str(row.get("method")) == name]
        lines.append(_line(rows, "target_accuracy", f"{name.replace('_', ' ')}, target", series, faint=True))
    drawn = [line for line in lines if line is not None]
    if not drawn:
        return None
    text = _in_words(drawn, "{:.1%}") + " These are the images trained on, not the test."
    return line_figure("accuracy", "Accuracy in training", drawn, "", text, percent=True)


def _effective_size(own: list[dict[str, Any]]) -> Picture | None:
    line = _line(own, "effective_sample_size", "effective sample size", 0)
    if line is None or float(np.ptp(line.y)) < 1e-9 + 1e-6 * abs(float(line.y[0])):
        return None  # a flat line is a number, and that stands at the top of the page
    text = _in_words([line], "{:,.0f}")
    return line_figure("effective", "Effective sample size", [line], "source images", text)


def _line(rows: list[dict[str, Any]], column: str, label: str, series: int, *, faint: bool = False) -> Line | None:
    points = [
        (step, value)
        for index, row in enumerate(rows)
        if (value := number(row.get(column))) is not None and (step := number(row.get("step", index))) is not None
    ]
    if not points:
        return None
    parts = np.array_split(np.array(sorted(points)), min(len(points), _MAX_POINTS))
    means = np.array([part.mean(axis=0) for part in parts])
    return Line(label, means[:, 0], means[:, 1], series, faint)


def _in_words(lines: list[Line], pattern: str) -> str:
    ends = [f"{line.label} {pattern.format(line.y[0])} → {pattern.format(line.y[-1])}" for line in lines]
    return "; ".join(ends) + "."
