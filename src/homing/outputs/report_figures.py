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
import numpy.typing as npt

from homing.outputs.report_data import Floats
from homing.outputs.report_rates import Density, LiftCurve, RateSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = ("#110101", "#110202", "#110303", "#110404", "#110505", "#110606")
_CSS = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(_SERIES, start=1)
}
_LOW_RGB, _MIDDLE_RGB, _HIGH_RGB = (0.80, 0.36, 0.12), (0.55, 0.57, 0.60), (0.10, 0.48, 0.82)
_RC: Any = {  # matplotlib types its settings by literal keys
    "svg.fonttype": "none",
    "svg.hashsalt": "homing",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
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


def histogram(key: str, rate: Floats, summary: RateSummary) -> Picture:
    """Draw how the rates are spread; on a logarithmic axis where they span more than a factor of 20."""
    import matplotlib

    positive = rate[rate > 0]
    num_zero = len(rate) - len(positive)
    is_log = len(positive) > 0 and float(positive.max()) > 20 * float(positive.min())
    with matplotlib.rc_context(_RC):
        figure, axes = _canvas()
        if is_log:
            edges = np.geomspace(positive.min(), positive.max(), 49)
            axes.set_xscale("log")
        else:
            edges = np.linspace(min(0.0, float(rate.min())), max(float(rate.max()), 1e-9) * 1.02, 49)
        counts, _ = np.histogram(positive if is_log else rate, edges)
        mean = float(rate.mean())
        bars = axes.bar(edges[:-1], counts, np.diff(edges), align="edge", alpha=0.9)
        for bar, middle in zip(bars, (edges[:-1] + edges[1:]) / 2, strict=True):
            bar.set_facecolor(_SERIES[0] if middle > mean else _SERIES[1])
        if counts.max() > 200 * max(1, float(np.median(counts[counts > 0]))):
            axes.set_yscale("log")
        axes.axvline(mean, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("rate (dashed: the mean)")
        axes.set_ylabel("source images")
        _plain_ticks(axes, x_log=is_log)
        svg = _svg(figure, key)
    zeros = f" {num_zero:,} have the rate 0 and stand in no bar." if is_log and num_zero else ""
    return Picture(
        "How the rates are spread",
        svg,
        f"{len(rate):,} rates from {summary.lowest:.3g} to {summary.highest:.3g}, median {summary.median:.3g}.{zeros}",
    )


def lift_figure(key: str, curve: LiftCurve, title: str, *, is_small: bool) -> Picture:
    """Draw the mean rate along the ranks of one descriptor."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        figure, axes = _canvas(is_small=is_small)
        x = 100 * curve.position
        axes.fill_between(x, curve.low, curve.high, color=_SERIES[0], alpha=0.18, linewidth=0)
        axes.plot(x, curve.mean_rate, color=_SERIES[0])
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("the pool in order, lowest to highest, in %")
        axes.set_ylabel("rate")
        svg = _svg(figure, key)
    return Picture(
        title,
        svg,
        f"Mean rate {curve.mean_rate[0]:.2f} where it is lowest, {curve.mean_rate[-1]:.2f} where it is highest; "
        "the band holds 80 % of the images.",
    )


def density_figure(key: str, binned: Density, titles: dict[str, str]) -> Picture:
    """Draw two descriptors against each other; colour is the mean rate, strength the number of images."""
    import matplotlib

    spread = _rate_spread(binned.mean_rate)
    with matplotlib.rc_context(_RC):
        figure, axes = _canvas()
        axes.grid(False)
        extent = (binned.x_edges[0], binned.x_edges[-1], binned.y_edges[0], binned.y_edges[-1])
        axes.imshow(
            _density_pixels(binned, spread),
            origin="lower",
            extent=extent,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_xlabel(titles[binned.x_name])
        axes.set_ylabel(titles[binned.y_name])
        _color_scale(figure, axes, spread)
        svg = _svg(figure, key)
    x_title, y_title = titles[binned.x_name], titles[binned.y_name].lower()
    return Picture(
        f"{x_title} against {y_title}",
        svg,
        f"{int(binned.counts.sum()):,} source images by {x_title.lower()} and {y_title}; the more images, the stronger "
        f"the colour; orange: mean rate below 1, grey: 1, blue: above 1.",
    )


def _rate_spread(mean_rate: Floats) -> float:
    """Largest |log2 rate| worth telling apart, from 1 (half to double) to 4."""
    finite = mean_rate[np.isfinite(mean_rate) & (mean_rate > 0)]
    if len(finite) == 0:
        return 1.0
    return float(np.clip(np.ceil(np.quantile(np.abs(np.log2(finite)), 0.95)), 1, 4))


def _density_pixels(binned: Density, spread: float) -> npt.NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        position = np.nan_to_num(np.log2(binned.mean_rate) / spread, nan=0.0, posinf=1.0, neginf=-1.0)
    filled = binned.counts > 0
    strength = np.sqrt(np.clip(binned.counts / max(np.quantile(binned.counts[filled], 0.95), 1.0), 0, 1))
    alpha = np.where(filled, 0.35 + 0.65 * strength, 0.0)
    pixels = np.concatenate([_diverging(position), alpha[..., None]], axis=-1)
    return np.round(255 * pixels).astype(np.uint8)


def _diverging(position: Floats) -> Floats:
    """Colours from orange (-1) over grey (0) to blue (1); every one readable on white and on black."""
    clipped = np.clip(position, -1, 1)[..., None]
    low, middle, high = np.array(_LOW_RGB), np.array(_MIDDLE_RGB), np.array(_HIGH_RGB)
    below, above = middle + (low - middle) * -clipped, middle + (high - middle) * clipped
    return np.asarray(np.where(clipped < 0, below, above), dtype=np.float64)


def _color_scale(figure: Figure, axes: Axes, spread: float) -> None:
    strip = figure.add_axes((0.885, 0.16, 0.022, 0.69))
    ramp = _diverging(np.linspace(-1, 1, 64))[:, None, :]
    strip.imshow(ramp, origin="lower", aspect="auto", extent=(0, 1, -spread, spread))
    strip.set_xticks([])
    strip.grid(False)
    ticks = [-spread, -spread / 2, 0.0, spread / 2, spread]
    strip.set_yticks(ticks, [f"{2**tick:.1g}" if tick < 0 else f"{2**tick:.2g}" for tick in ticks])
    strip.yaxis.tick_right()
    strip.tick_params(length=0)
    figure.text(0.995, 0.9, "mean rate", ha="right", color=_MUTED)
    for spine in strip.spines.values():
        spine.set_visible(False)
    axes.set_position((0.13, 0.16, 0.69, 0.8))


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

    with matplotlib.rc_context(_RC):
        figure, axes = _canvas(is_small=is_small)
        for line in lines:
            style: dict[str, Any] = {"color": _SERIES[line.series % len(_SERIES)]}
            style |= {"linewidth": 1.3, "alpha": 0.8, "linestyle": (0, (4, 2))} if line.faint else {}
            axes.plot(line.x, line.y, **style)
        axes.set_xlabel("step")
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        write = (lambda value, _: f"{100 * value:g} %") if "%" in pattern else (lambda value, _: _short(value))
        axes.yaxis.set_major_formatter(FuncFormatter(write))
        svg = _svg(figure, key)
    ends = [
        (
            line.series % len(_SERIES) + 1,
            line.label,
            " → ".join(pattern.format(line.y[end]).replace("%", " %") for end in (0, -1)),
        )
        for line in lines
    ]
    return Picture(title, svg, "; ".join(f"{label} {text}" for _, label, text in ends) + ".", tuple(ends))


def _canvas(*, is_small: bool = False) -> tuple[Figure, Axes]:
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


def _svg(figure: Figure, key: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
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
