"""What the report reads: the files of a run folder, checked and turned into plain columns."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from homing.errors import DataError
from homing.outputs.report.columns import Floats, RateColumns, read_columns
from homing.outputs.run_kinds import lost, results_of


@dataclass(frozen=True)
class Places:
    """Images on a plane by their features.

    Attributes:
        kind: "pca" or "umap".
        source: Places of source images, shape (rows, 2).
        rate: Their rates, shape (rows,).
        target: Places of target images, shape (images, 2).
    """

    kind: str
    source: Floats
    rate: Floats
    target: Floats


@dataclass(frozen=True)
class RunFolder:
    """Everything that the report knows.

    Attributes:
        name: Name of the run folder.
        results: `results.json` as it stands.
        metrics: Rows of `metrics.jsonl` of kind "train"; empty without the file.
        recipe: `recipe.yaml` parsed; empty where it is missing or not a mapping.
        recipe_text: `recipe.yaml` as text.
        rates: `rates.parquet`.
        places: A sample of source and target images on a plane, out of `map.parquet`; empty without the file.
    """

    name: str
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    recipe: dict[str, Any]
    recipe_text: str
    rates: RateColumns
    places: tuple[Places, ...]


def read_run(run: Path, results: dict[str, Any] | None = None) -> RunFolder:
    """Read the files of a run folder.

    Args:
        run: Folder holding at least `results.json` and `rates.parquet`.
        results: The content of the first, where that is yet to be written.

    Raises:
        DataError: If one of these two is missing or cannot be read.
    """
    results = _read_results(run / "results.json") if results is None else results
    recipe_text = _read_text(run / "recipe.yaml")
    if not (run / "rates.parquet").is_file():
        raise lost(run / "rates.parquet", run)
    rates = read_columns(run / "rates.parquet", _dropped_ids(results))
    return RunFolder(
        name=run.resolve().name,
        results=results,
        metrics=_read_metrics(run / "metrics.jsonl"),
        recipe=_parse_recipe(recipe_text),
        recipe_text=recipe_text,
        rates=rates,
        places=_read_map(run / "map.parquet", rates),
    )


def number(value: Any) -> float | None:
    """Return a finite number as float, anything else (text, null, NaN, true) as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object with text keys, and an empty one for anything else."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _read_results(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(_unfinished(path))
    results = results_of(path.parent)
    if "targets" in results:
        names = ", ".join(str(path.parent / name) for name in results["targets"])
        raise DataError(f"{path}: is of several targets, each with a report of its own; give one of {names}")
    if results.get("headline") not in ("none", "unmeasured") and not isinstance(results.get("target"), dict):
        raise DataError(
            f'{path}: expected a JSON object with a "target" object, found none. '
            "Restore the file, or run the recipe again into a new folder."
        )
    return results


def _unfinished(path: Path) -> str:
    return (
        f"{path}: there is no such file, so {path.parent} is not the folder of a finished run. "
        "Give a folder that `homing run` wrote, or continue it with `homing run … --resume`."
    )


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _parse_recipe(text: str) -> dict[str, Any]:
    import yaml

    try:
        return mapping(yaml.safe_load(text))
    except yaml.YAMLError:
        return {}  # the text is still shown as it stands


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in _read_text(path).splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run that was stopped may leave half a line
        if isinstance(row, dict) and row.get("kind") == "train":
            rows.append(row)
    return rows


def _dropped_ids(results: dict[str, Any]) -> list[str]:
    """Source samples whose image could not be read: they have rate 0, and nothing to show."""
    names = [str(mapping(item).get("image", "")) for item in results.get("dropped") or []]
    return [name.removeprefix("source ") for name in names if name.startswith("source ")]


def _read_map(path: Path, rates: RateColumns) -> tuple[Places, ...]:
    """The places of images that still have a rate; a map that cannot be read is left out."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        is_target = pc.equal(table["role"].cast(pa.string()), "target")
        source, target = table.filter(pc.invert(is_target)), table.filter(is_target)
    except (FileNotFoundError, pa.ArrowInvalid, KeyError, OSError):
        return ()
    row_of = rates.rows_of(source["sample_id"].combine_chunks().cast(pa.string()))
    found = []
    for kind in ("pca", "umap"):
        names = (f"{kind}_x", f"{kind}_y")
        if set(names) <= set(table.column_names):
            ours, theirs = (np.stack([_floats(part[name]) for name in names], axis=1) for part in (source, target))
            found.append(Places(kind, ours[row_of >= 0], rates.rate[row_of[row_of >= 0]], theirs))
    return tuple(places for places in found if len(places.source))


def _floats(column: Any) -> Floats:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.fill_null(column.cast(pa.float64()), math.nan)
    return np.asarray(values.to_numpy(), dtype=np.float64)
