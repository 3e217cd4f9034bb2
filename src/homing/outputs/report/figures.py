"""The report's curves as inline SVG, drawn by matplotlib and coloured by the page.

matplotlib never sees the page's colours: it draws with stand-in colours, which are replaced by CSS variables
afterwards, so that one drawing serves the light theme, the dark theme and print.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from homing.outputs.report.columns import Floats
from homing.outputs.report.rates import LiftCurve, RateSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, _GRID = "#010101", "#020202", "#030303"
_LEAST = 1e-3  # rates below this are all as good as 0
DPI = 170  # of what is drawn as dots instead of lines
_SERIES = ("#110101", "#110202", "#110303", "#110404", "#110505", "#110606")
_CSS = {INK: "var(--ink)", MUTED: "var(--muted)", _GRID: "var(--line)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(_SERIES, start=1)
}
STYLE: Any = {  # matplotlib types its settings by literal keys
    "svg.fonttype": "none",
    "svg.hashsalt": "homing",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 2.0,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Picture:
    """One figure on the page.

    Attributes:
        title: Heading.
        svg: The drawing, without prolog, ids unique on the page.
        description: What it shows, in words, for those who cannot see it.
        legend: Series number (from 1), name and text of each line; empty where colours need no key.
    """

    title: str
    svg: str
    description: str
    legend: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: Name in the legend.
        x: Positions, shape (points,).
        y: Values, shape (points,).
        series: Which of the page's series colours, from 0.
        faint: Whether it stands back behind the others.
    """

    label: str
    x: Floats
    y: Floats
    series: int
    faint: bool = False


def histogram(key: str, rate: Floats, summary: RateSummary, *, is_small: bool) -> Picture:
    """Draw how the rates are spread; on a logarithmic axis where they span more than a factor of 20."""
    import matplotlib

    positive = rate[rate > 0]
    is_log = len(positive) > 0 and float(positive.max()) > 20 * float(positive.min())
    low = max(float(positive.min()), _LEAST) if is_log else min(0.0, summary.lowest)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(is_small=is_small)
        if is_log:
            edges = np.geomspace(low, max(summary.highest, 2 * low), 49)
            axes.set_xscale("log")
        else:
            edges = np.linspace(low, max(summary.highest, 1e-9) * 1.02, 49)
        counts, _ = np.histogram(np.clip(rate, edges[0], edges[-1]), edges)
        mean = float(rate.mean())
        bars = axes.bar(edges[:-1], counts, np.diff(edges), align="edge", alpha=0.9)
        for bar, middle in zip(bars, (edges[:-1] + edges[1:]) / 2, strict=True):
            bar.set_facecolor(_SERIES[0] if middle > mean else _SERIES[1])
        if counts.max() > 200 * max(1, float(np.median(counts[counts > 0]))):
            axes.set_yscale("log")
        axes.axvline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("rate (dashed: the mean)")
        axes.set_ylabel("source images")
        _plain_ticks(axes, x_log=is_log)
        svg = to_svg(figure, key)
    text = f"{len(rate):,} rates, median {summary.median:.3g}, the highest {summary.highest:.3g}."
    if is_log and (num_below := int((rate < low).sum())):
        num_zero = len(rate) - len(positive)
        text += (
            f" {num_below:,} are smaller than {low:.3g} and stand in the leftmost bar; {num_zero:,} have the rate 0."
        )
    return Picture("How the rates are spread", svg, text)


def share_figure(key: str, title: str, counts: Floats, x_label: str, y_label: str) -> Picture:
    """Draw how many images fall into each part of the way from 0 to 1, parts of equal width.

    Args:
        key: Prefix of the ids in the drawing.
        title: Heading.
        counts: Of each part, from the lowest, shape (parts,).
        x_label: What goes from 0 to 1, in percent.
        y_label: What is counted.
    """
    import matplotlib

    edges = np.linspace(0, 100, len(counts) + 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas()
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", alpha=0.9, color=_SERIES[0])
        axes.set_xlim(0, 100)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _plain_ticks(axes, x_log=False)
        svg = to_svg(figure, key)
    upper = float(counts[len(counts) // 2 :].sum())
    return Picture(title, svg, f"{upper:,.0f} of {float(counts.sum()):,.0f} {y_label} lie above 50 %.")


def lift_figure(key: str, curve: LiftCurve, title: str, *, is_small: bool) -> Picture:
    """Draw the mean rate along the ranks of one descriptor."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(is_small=is_small)
        x = 100 * curve.position
        axes.fill_between(x, curve.low, curve.high, color=_SERIES[0], alpha=0.18, linewidth=0)
        axes.plot(x, curve.mean_rate, color=_SERIES[0])
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("the pool in order, lowest to highest, in %")
        axes.set_ylabel("rate")
        svg = to_svg(figure, key)
    return Picture(
        f"Rate by {title.lower()}",
        svg,
        f"Mean rate {curve.mean_rate[0]:.2f} where it is lowest, {curve.mean_rate[-1]:.2f} where it is highest; "
        "the band holds 80 % of the images.",
    )


def coverage_figure(key: str, coverage: Floats, accuracy: Floats, aurc: float | None) -> Picture:
    """Draw accuracy against the share of images that are answered.

    Args:
        key: Prefix of the ids in the drawing.
        coverage: Share answered, the surest first, shape (points,).
        accuracy: On these, shape (points,).
        aurc: The area under the curve of errors; None where it is not known.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = canvas()
        axes.plot(100 * coverage, 100 * accuracy, color=_SERIES[0], clip_on=False)
        axes.set_xlim(0, 100)
        axes.set_ylim(max(0.0, min(100 * float(accuracy.min()), 95) - 2), 100)
        axes.set_xlabel("images answered, the surest first, in %")
        axes.set_ylabel("right, in %")
        svg = to_svg(figure, key)
    half = float(accuracy[int(np.abs(coverage - 0.5).argmin())])
    text = f"{100 * half:.1f} % right on the surer half, {100 * float(accuracy[-1]):.1f} % on all."
    area = "" if aurc is None else f" Error averaged over all coverages (AURC): {aurc:.3f}."
    return Picture("Accuracy by coverage", svg, text + area)


def line_figure(key: str, title: str, lines: Sequence[Line], y_label: str, pattern: str, *, is_small: bool) -> Picture:
    """Draw lines over training steps; the key to the colours stands below the drawing, with first and last value.

    Args:
        key: Prefix of the ids in the drawing.
        title: Heading.
        lines: At least one.
        y_label: What the values are.
        pattern: How a value is written, as for `str.format`; with "%" in it the axis shows percentages.
        is_small: Whether three of these stand side by side.
    """
    import matplotlib
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(is_small=is_small)
        for line in lines:
            style: dict[str, Any] = {"color": _SERIES[line.series % len(_SERIES)]}
            style |= {"linewidth": 1.3, "alpha": 0.8, "linestyle": (0, (4, 2))} if line.faint else {}
            axes.plot(line.x, line.y, **style)
        axes.set_xlabel("step")
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if "%" in pattern:
            axes.set_ylim(max(0.0, axes.get_ylim()[0]), min(1.0, axes.get_ylim()[1]))
            for drawn in axes.get_lines():
                drawn.set_clip_on(False)  # a line at 100 % keeps its width
        write = (lambda value, _: f"{100 * value:g} %") if "%" in pattern else (lambda value, _: _short(value))
        axes.yaxis.set_major_formatter(FuncFormatter(write))
        svg = to_svg(figure, key)
    ends = [
        (
            line.series % len(_SERIES) + 1,
            line.label,
            " → ".join(pattern.format(line.y[end]).replace("%", " %") for end in (0, -1)),
        )
        for line in lines
    ]
    return Picture(title, svg, "; ".join(f"{label} {text}" for _, label, text in ends) + ".", tuple(ends))


def canvas(*, is_small: bool = False) -> tuple[Figure, Axes]:
    """An empty drawing, as wide as half the page, or as a third of it; text comes out at 12 to 13 pixels."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9, 2.8) if is_small else (5.0, 3.05))
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0.155, 0.17, 0.815, 0.79) if is_small else (0.13, 0.16, 0.85, 0.8))
    axes.patch.set_alpha(0)
    axes.tick_params(length=0, which="both")
    return figure, axes


def _plain_ticks(axes: Axes, *, x_log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if x_log:
        low, high = axes.get_xlim()
        subs = (1.0, 3.0) if high < 1e4 * low else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=9))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def to_svg(figure: Figure, key: str) -> str:
    """The drawing as inline SVG, its ids under `key`, its colours the page's."""
    out = io.StringIO()
    figure.savefig(out, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns|xmlns:xlink|version|width|height)="[^"]*"', "", svg, count=5)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{key}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", svg)
    for stand_in, color in _CSS.items():
        svg = svg.replace(stand_in, color)
    return svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
