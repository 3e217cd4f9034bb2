"""The picture of a comparison: what every method is judged by, seed by seed, best first."""

from __future__ import annotations

import io
from typing import Any

from homing.measures import Measure, headline_of
from homing.outputs.titles import title_of

_OWN, _OTHER, _INK, _LINE = "#1a74c4", "#6b7683", "#16202b", "#dde3e9"


def comparison_svg(table: dict[str, Any]) -> str:
    """Draw a comparison as it is printed.

    Args:
        table: The content of `comparison.json`.

    Returns:
        An SVG file: a dot for each seed, a bar at the mean, the gain over the reference with its interval as text.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows, measure = table["methods"], headline_of(table)
    scale = 100 if measure.is_percent else 1
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "homing", "text.color": _INK}):
        figure = Figure(figsize=(7.6, 0.9 + 0.36 * len(rows)), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            color = _OWN if row["method"] == table["own_method"] else _OTHER
            values = [scale * value for value in row["by_seed"][measure.key]]
            axes.plot(values, [place] * len(values), "o", color=color, alpha=0.55, markeredgewidth=0)
            axes.plot([scale * row[measure.key]], [place], "|", color=color, markersize=16, markeredgewidth=2.5)
            axes.text(1.02, place, _gain(row, measure), transform=axes.get_yaxis_transform(), va="center")
        axes.text(1.02, -1, f"against {title_of(table['reference'])}", transform=axes.get_yaxis_transform())
        count, images = len(table["seeds"]), table["num_test"]
        axes.set_yticks(range(len(rows)), [title_of(row["method"]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(
            f"{measure.word}{' in %' * measure.is_percent}, {count} seed{'s' * (count > 1)}, {images:,} images"
        )
        axes.grid(axis="x", color=_LINE)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _gain(row: dict[str, Any], measure: Measure) -> str:
    if "gain" not in row:
        return ""
    mean, low, high = (measure.difference(row["gain"][measure.key][key]) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
