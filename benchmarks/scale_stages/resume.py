"""`--resume` until the first step: a run over a table of tiny pictures was stopped after its fifth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from scale import apart, stopwatch

from scale_stages import drawing, timing

SIDE, DISTINCT, BLOCK = 32, 4_096, 65_536
CASES = [{"rows": 1_000_000, "classes": 100}]


class FirstStep(Exception):
    """It was taken."""


def draw_table(path: Path, start: int, rows: int, classes: int, *, dark: bool = False) -> None:
    """A table of pictures by id and label; only so many of them are distinct, which a store looks up all the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    drawn = [drawing.picture(row % classes, row, SIDE, dark=dark) for row in range(start, start + min(rows, DISTINCT))]
    schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("image", pa.binary())])
    whole = path.with_name(path.name + ".part")
    with pq.ParquetWriter(whole, schema) as writer:
        for first in range(0, rows, BLOCK):
            places = range(first, min(rows, first + BLOCK))
            pictures = [drawn[place % len(drawn)] for place in places]
            labels = [f"{(start + place % len(drawn)) % classes:03d}" for place in places]
            writer.write_table(pa.table([[f"{place:09d}" for place in places], labels, pictures], schema=schema))
    whole.replace(path)


def recipe_in(folder: Path) -> Any:
    """A head on the features of a tiny net."""
    data = {role: {"path": str(folder / f"{role}.parquet"), "id_column": "id"} for role in ("source", "target")}
    return timing.recipe_of(
        data,
        folder / "store",
        model={"backbone": "test_resnet", "weights": "none", "image_size": SIDE, "trainable": "head"},
        training={"steps": 1_000},
    )


def begin(folder: Path) -> dict[str, Any]:
    """The run that is stopped."""
    from homing import flow
    from homing.errors import Interrupted

    found: dict[str, float] = {}
    timing.clocked(found)
    timing.stop_after(5)
    watch = stopwatch()
    try:
        flow.run(recipe_in(folder), folder / "run", overwrite=True, quiet=True)
    except Interrupted:
        return watch.read() | found
    raise AssertionError("the run was not stopped")


def measure(cache: Path, rows: int, classes: int, width: int | None = None) -> dict[str, Any]:
    """Seconds from the program's start, imports among them."""
    folder = cache / f"resume-{rows}-{classes}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "source.parquet").exists():
        draw_table(folder / "target.parquet", 0, 2 * classes, classes, dark=True)
        draw_table(folder / "source.parquet", 0, rows, classes)
    shutil.rmtree(folder / "run", ignore_errors=True)
    first = apart(begin, folder)
    return apart(go_on, folder) | {f"first_{name}": value for name, value in first.items()}


def go_on(folder: Path) -> dict[str, Any]:
    """The same run again, until its first step was taken."""
    watch, found = stopwatch(), {}

    from homing import flow

    def stop() -> None:
        raise FirstStep

    timing.each_step(stop)
    timing.clocked(found)
    try:
        flow.run(recipe_in(folder), folder / "run", resume=True, quiet=True)
    except FirstStep:
        return watch.read() | found
    raise AssertionError("no step was taken")
