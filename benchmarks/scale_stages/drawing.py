"""Pools of small pictures on disk, no two alike, whose classes can be told apart somewhat; drawn once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

COARSE = 6  # pixels a side of what a picture shows, before it is enlarged


def picture(label: int, row: int, side: int, *, dark: bool = False, version: int = 0) -> bytes:
    """A JPEG: half its class's pattern, half its own; the dark ones are of another domain."""
    pattern = np.random.default_rng([1, label]).integers(0, 256, (COARSE, COARSE, 3))
    own = np.random.default_rng([2, row, version, dark]).integers(0, 256, (COARSE, COARSE, 3))
    pixels = ((pattern + own) / (5 if dark else 2)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR).save(out, "JPEG", quality=85)
    return out.getvalue()


def path_of(folder: Path, row: int, classes: int) -> Path:
    """Where the picture of a row lies: classes take turns."""
    return folder / f"{row % classes:03d}" / f"{row:08d}.jpg"


def draw_folder(folder: Path, rows: int, classes: int, side: int, *, dark: bool = False) -> Path:
    """An image folder; nothing is done where it is there."""
    mark = folder.with_name(folder.name + ".done")
    if mark.exists():
        return folder
    for label in range(classes):
        path_of(folder, label, classes).parent.mkdir(parents=True, exist_ok=True)
    for row in range(rows):
        path_of(folder, row, classes).write_bytes(picture(row % classes, row, side, dark=dark))
    mark.touch()
    return folder


def change(folder: Path, rows: int, classes: int, side: int, every: int) -> None:
    """Draw every so-many-th picture of a folder anew: as never before, and in another one's place."""
    mark = folder.with_name(folder.name + ".version")
    version = int(mark.read_text()) + 1 if mark.exists() else 1
    for row in range(0, rows, every):
        path_of(folder, row, classes).write_bytes(picture(row % classes, row, side, version=version))
    mark.write_text(str(version))


def draw_problem(folder: Path, rows: int, classes: int, side: int, *, shots: int = 5) -> dict[str, dict[str, str]]:
    """A source, and a target and a test of some pictures a class in a darker domain: `data` of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_folder(folder / "source", rows, classes, side)
    for role in ("target", "test"):
        start = 0 if role == "target" else shots * classes
        draw_few(folder / role, start, shots * classes, classes, side)
    return {role: {"path": str(folder / role)} for role in ("source", "target", "test")}


def draw_few(folder: Path, start: int, rows: int, classes: int, side: int) -> None:
    """Dark pictures of some rows."""
    for row in range(start, start + rows):
        path = path_of(folder, row, classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(row % classes, row, side, dark=True))
