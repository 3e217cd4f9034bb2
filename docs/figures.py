"""Draw the figures of docs/how-it-works.md out of a finished quickstart.

homing quickstart && python docs/figures.py homing-quickstart docs/images
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

_KINDS = {
    (True, True): ("handwritten, label right", "#1a74c4"),
    (True, False): ("handwritten, label wrong", "#8257c9"),
    (False, True): ("printed, label right", "#2f8a57"),
    (False, False): ("printed, label wrong", "#cf5d12"),
}
_STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
}


def main() -> None:
    """Write how-descriptors.png and how-rates.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished quickstart")
    parser.add_argument("output", type=Path, help="folder for the figures")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    columns, kinds = read(given.run)
    with rc_context(_STYLE):
        save(descriptors(columns, kinds), given.output / "how-descriptors.png")
        save(rates(columns, kinds), given.output / "how-rates.png")


def read(run: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns of `rates.parquet`, and for each row its place in `_KINDS`."""
    table = pq.read_table(run / "rates.parquet")
    source = Path(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["data"]["source"]["path"])
    with (source / "metadata.csv").open(encoding="utf-8", newline="") as file:
        truth = {row["file_name"]: (row["matches"] == "1", row["clean"] == "1") for row in csv.DictReader(file)}
    order = list(_KINDS)
    kinds = np.array([order.index(truth[sample_id]) for sample_id in table["sample_id"].to_pylist()])
    names = ("target_likeness", "label_consistency", "rate")
    return {name: table[name].to_numpy() for name in names}, kinds


def descriptors(columns: dict[str, np.ndarray], kinds: np.ndarray) -> Figure:
    """Likeness against consistency, coloured by the truth."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for index in (3, 2, 1, 0):  # the few handwritten ones on top
        title, color = list(_KINDS.values())[index]
        rows = kinds == index
        x, y = columns["target_likeness"][rows], columns["label_consistency"][rows]
        axes.scatter(x, y, s=9, c=color, alpha=0.7, linewidths=0, label=f"{title} ({rows.sum():,})")
    axes.set_xlabel("target likeness (log density ratio)")
    axes.set_ylabel("label consistency (log-probability)")
    axes.legend(loc="lower right", markerscale=2)
    return figure


def rates(columns: dict[str, np.ndarray], kinds: np.ndarray) -> Figure:
    """The rates of each kind: a dot an image, a bar for the mean."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    generator = np.random.default_rng(0)
    for index, (title, color) in enumerate(_KINDS.values()):
        found = columns["rate"][kinds == index]
        heights = index + generator.uniform(-0.3, 0.3, len(found))
        axes.scatter(np.maximum(found, 1e-3), heights, s=7, c=color, alpha=0.5, linewidths=0)
        axes.plot([found.mean()] * 2, [index - 0.38, index + 0.38], color="black", linewidth=2)
        axes.text(45, index, f"mean {found.mean():.2f}", va="center")
        axes.text(0.0008, index, title, va="center", ha="right")
    axes.set_xscale("log")
    axes.set_xlim(1e-3, 40)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlabel("rate (the mean of each class is 1; smaller ones than 0.001 stand at 0.001)")
    return figure


def save(figure: Figure, path: Path) -> None:
    """As PNG on white, readable in both themes of a page."""
    figure.savefig(path, dpi=130, facecolor="white", metadata={"Software": ""})
    print(path)


if __name__ == "__main__":
    main()
