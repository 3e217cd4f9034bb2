"""The picture of a comparison: every method's accuracy, seed by seed, best first."""

from __future__ import annotations

import io
from typing import Any

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

    rows = table["methods"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "homing", "text.color": _INK}):
        figure = Figure(figsize=(7.6, 0.9 + 0.36 * len(rows)), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            color = _OWN if row["method"] == table["own_method"] else _OTHER
            accuracies = [100 * value for value in row["accuracies"]]
            axes.plot(accuracies, [place] * len(accuracies), "o", color=color, alpha=0.55, markeredgewidth=0)
            axes.plot([100 * row["accuracy"]], [place], "|", color=color, markersize=16, markeredgewidth=2.5)
            axes.text(1.02, place, _gain(row), transform=axes.get_yaxis_transform(), va="center")
        axes.text(1.02, -1, f"against {title_of(table['reference'])}", transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(rows)), [title_of(row["method"]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"accuracy in %, {len(table['seeds'])} seeds, {table['num_test']:,} images")
        axes.grid(axis="x", color=_LINE)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _gain(row: dict[str, Any]) -> str:
    if "gain" not in row:
        return ""
    mean, low, high = (100 * row["gain"]["accuracy"][key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
