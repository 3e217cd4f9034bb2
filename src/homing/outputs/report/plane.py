"""Source images on a plane, coloured by rate: two descriptors against each other, and the map of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from homing.outputs.report.columns import Floats
from homing.outputs.report.data import Places
from homing.outputs.report.figures import INK, MUTED, STYLE, Picture, canvas, to_svg
from homing.outputs.report.rates import Density

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DOTS = 6_000
"""More source images than this are binned, or a sample of them is shown."""
COLORS = "orange: rate below 1, grey: 1, blue: above 1."
_LOW_RGB, _MIDDLE_RGB, _HIGH_RGB = (0.80, 0.36, 0.12), (0.55, 0.57, 0.60), (0.10, 0.48, 0.82)


@dataclass(frozen=True)
class Plane:
    """Images on a plane.

    Attributes:
        x_label: What is along x.
        y_label: What is along y.
        source: Places of source images, shape (rows, 2).
        rate: Their rates, shape (rows,).
        target: Places of target images, shape (images, 2); none where they have no place here.
    """

    x_label: str
    y_label: str
    source: Floats
    rate: Floats
    target: Floats


def scatter_figure(key: str, title: str, plane: Plane, description: str) -> Picture:
    """Draw a dot for each source image, coloured by its rate, and a ring for each target image."""
    import matplotlib

    spread = _rate_spread(plane.rate)
    with np.errstate(divide="ignore"):
        position = np.log2(plane.rate) / spread
    order = np.argsort(np.abs(np.clip(position, -1, 1)), kind="stable")  # what is far from 1 lies on top
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas()
        axes.grid(False)
        axes.scatter(
            plane.source[order, 0],
            plane.source[order, 1],
            s=float(np.clip(16_000 / len(order), 3, 26)),
            c=_diverging(position[order]),
            alpha=0.75,
            linewidths=0,
            rasterized=True,
        )
        if len(plane.target):
            axes.plot(*plane.target.T, "o", mfc="none", mec=INK, ms=5.5, mew=1.3)
        axes.set_xlabel(plane.x_label)
        axes.set_ylabel(plane.y_label)
        _color_scale(figure, axes, spread)
        svg = to_svg(figure, key)
    return Picture(title, svg, description)


def map_figures(places: Sequence[Places]) -> list[Picture]:
    """The images by their features, on the plane that shows most of their differences."""
    titles = {
        "pca": ("principal components of the features, both pools weighing alike", "1st component", "2nd component"),
        "umap": ("UMAP of the features: who is near whom; distances between far groups mean nothing", "", ""),
    }
    return [
        scatter_figure(
            f"map-{one.kind}",
            f"Source and target, by {one.kind.upper()}",
            Plane(*titles[one.kind][1:], one.source, one.rate, one.target),
            f"{len(one.source):,} source images (dots) and {len(one.target):,} target images (rings), by"
            f" {titles[one.kind][0]}. {COLORS[:1].upper()}{COLORS[1:]}",
        )
        for one in places
    ]


def density_figure(key: str, binned: Density, titles: dict[str, str]) -> Picture:
    """Draw two descriptors against each other; colour is the mean rate, strength the number of images."""
    import matplotlib

    spread = _rate_spread(binned.mean_rate)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas()
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
        svg = to_svg(figure, key)
    x_title, y_title = titles[binned.x_name], titles[binned.y_name].lower()
    return Picture(
        f"{x_title} against {y_title}",
        svg,
        f"{int(binned.counts.sum()):,} source images by {x_title.lower()} and {y_title}; the more images, the stronger "
        f"the colour; {COLORS}",
    )


def _rate_spread(mean_rate: Floats) -> float:
    """Largest |log2 rate| worth telling apart, from 1 (half to double) to 4."""
    finite = mean_rate[np.isfinite(mean_rate) & (mean_rate > 0)]
    if len(finite) == 0:
        return 1.0
    return float(np.clip(np.ceil(np.quantile(np.abs(np.log2(finite)), 0.95)), 1, 4))


def scatter_of(x_name: str, y_name: str, x: Floats, y: Floats, rate: Floats, titles: dict[str, str]) -> Picture | None:
    """Two descriptors against each other, a dot a source image; None where they are unknown or too many."""
    known = np.isfinite(x) & np.isfinite(y)
    if not 2 <= known.sum() <= MAX_DOTS:
        return None
    places = np.stack([x[known], y[known]], axis=1)
    plane = Plane(titles[x_name], titles[y_name], places, rate[known], np.empty((0, 2)))
    text = f"{len(places):,} source images by {titles[x_name].lower()} and {titles[y_name].lower()}; {COLORS}"
    return scatter_figure("density", f"{titles[x_name]} against {titles[y_name].lower()}", plane, text)


def _density_pixels(binned: Density, spread: float) -> npt.NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        position = np.nan_to_num(np.log2(binned.mean_rate) / spread, nan=0.0, posinf=1.0, neginf=-1.0)
    filled = binned.counts > 0
    strength = np.sqrt(np.clip(binned.counts / max(float(np.quantile(binned.counts[filled], 0.95)), 1.0), 0, 1))
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
    figure.text(0.995, 0.9, "rate", ha="right", color=MUTED)
    for spine in strip.spines.values():
        spine.set_visible(False)
    axes.set_position((0.13, 0.16, 0.69, 0.8))
