"""Real pictures in many classes, a pretrained net whose head is trained: from nothing to the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from scale import apart, stopwatch

from scale_stages import bare, drawing, timing

SIDE = 64
NET = ("tf_efficientnet_lite0", "bundled")
MODEL = {"backbone": NET[0], "weights": NET[1], "image_size": SIDE, "trainable": "head"}
CASES = [{"rows": 10_000, "classes": 20, "width": 1_280}, {"rows": 100_000, "classes": 200, "width": 1_280}]


def run_once(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """A whole run, and where its seconds went, in a process of its own."""
    from homing import flow

    recipe = timing.recipe_of(data, folder / "store", model=MODEL, training={"epochs": 2})
    found: dict[str, float] = {}
    timing.clocked(found)
    watch = stopwatch()
    results = flow.run(recipe, folder / "run", overwrite=True, quiet=True).results
    return watch.read() | found | {"accuracy": round(results["target"]["accuracy"], 4)}


def measure(cache: Path, rows: int, classes: int, width: int) -> dict[str, Any]:
    """From nothing, between two halves of a bare forward pass; then again after 1 % of the pictures changed."""
    folder = cache / f"pictures-{rows}-{classes}"
    data = drawing.draw_problem(folder, rows, classes, SIDE)
    for old in ("store", "run"):
        shutil.rmtree(folder / old, ignore_errors=True)
    passes = [apart(bare.forward, folder / "source", 0, *NET, classes, SIDE)]
    first = apart(run_once, folder, data)
    passes.append(apart(bare.forward, folder / "source", 1, *NET, classes, SIDE))
    drawing.change(folder / "source", rows, classes, SIDE, every=100)
    again = apart(run_once, folder, data)
    return (
        first
        | bare.against(first, passes)
        | {
            "changed_seconds": again["seconds"],
            "changed_cpu_seconds": again["cpu_seconds"],
            "changed_to_first": round(again["seconds"] / first["seconds"], 3),
            "changed_scan_to_first": round(again["scan_seconds"] / first["scan_seconds"], 3),
        }
    )
