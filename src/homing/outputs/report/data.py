"""What the report reads: the files of a run folder, checked and turned into plain columns."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from homing.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]

DESCRIPTORS = ("target_likeness", "label_consistency", "target_alignment")
_NOT_GROUPS = {"sample_id", "source", "label", "rate", "visits", "suggested_label", *DESCRIPTORS}


@dataclass(frozen=True)
class Category:
    """One text column as codes into its sorted distinct values.

    Attributes:
        names: Distinct values, sorted; a missing value is "(none)".
        codes: Index into `names` per row, shape (rows,).
    """

    names: tuple[str, ...]
    codes: Codes


@dataclass(frozen=True)
class RateColumns:
    """`rates.parquet` as columns; rows whose rate is not a finite number are left out and counted.

    Attributes:
        sample_ids: Arrow array of text; only the few rows that are shown are ever turned into Python.
        rate: Rates, shape (rows,), finite.
        label: The class of each row.
        source: The pool that each row came from.
        suggested: The class that the model would give, or None when the run did not record it.
        descriptors: Name to values, shape (rows,), NaN where unknown; columns without any value are left out.
        groups: The user's own group columns.
        num_dropped: Rows left out because their rate was not finite.
    """

    sample_ids: Any
    rate: Floats
    label: Category
    source: Category
    suggested: Category | None
    descriptors: dict[str, Floats]
    groups: dict[str, Category]
    num_dropped: int

    def ids(self, rows: Codes) -> list[str]:
        """Return the sample ids of the given rows, in their order."""
        return [str(sample_id) for sample_id in self.sample_ids.take(rows).to_pylist()]


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
    rates = _read_rates(run / "rates.parquet", _dropped_ids(results))
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
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(_unfinished(path)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: is not valid JSON ({error}). Restore the file, or run the recipe again into a new folder."
        ) from None
    has_no_figure = isinstance(results, dict) and results.get("headline") in ("none", "unmeasured")
    if not has_no_figure and not (isinstance(results, dict) and isinstance(results.get("target"), dict)):
        raise DataError(
            f'{path}: expected a JSON object with a "target" object, found none. '
            "Restore the file, or run the recipe again into a new folder."
        )
    return mapping(results)


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


def _read_rates(path: Path, dropped: list[str]) -> RateColumns:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(_unfinished(path))
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({error}). Run the recipe again.") from None
    missing = [name for name in ("sample_id", "label", "rate") if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; found {', '.join(table.column_names) or 'none'}. "
            "Give the rates file that `homing run` wrote."
        )
    finite = pc.fill_null(pc.is_finite(table["rate"].cast(pa.float64())), False)
    keep = pc.and_(finite, pc.invert(pc.is_in(table["sample_id"], value_set=pa.array(dropped, pa.string()))))
    kept = table.filter(keep)
    if kept.num_rows == 0:
        raise DataError(f"{path}: none of its {table.num_rows} rows has a finite rate, so there is nothing to show.")
    return _columns(kept, table.num_rows - kept.num_rows)


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
    row_of = pc.fill_null(pc.index_in(source["sample_id"], value_set=rates.sample_ids), -1).to_numpy()
    found = []
    for kind in ("pca", "umap"):
        names = (f"{kind}_x", f"{kind}_y")
        if set(names) <= set(table.column_names):
            ours, theirs = (np.stack([_floats(part[name]) for name in names], axis=1) for part in (source, target))
            found.append(Places(kind, ours[row_of >= 0], rates.rate[row_of[row_of >= 0]], theirs))
    return tuple(places for places in found if len(places.source))


def _columns(table: Any, num_dropped: int) -> RateColumns:
    import pyarrow as pa

    names = set(table.column_names)
    descriptors = {name: _floats(table[name]) for name in DESCRIPTORS if name in names}
    is_text = {name: pa.types.is_string(_value_type(table[name])) for name in table.column_names}
    no_source = Category(("source",), np.zeros(table.num_rows, dtype=np.int64))
    return RateColumns(
        sample_ids=table["sample_id"].combine_chunks(),
        rate=_floats(table["rate"]),
        label=_category(table["label"]),
        source=_category(table["source"]) if "source" in names else no_source,
        suggested=_category(table["suggested_label"]) if "suggested_label" in names else None,
        descriptors={name: values for name, values in descriptors.items() if np.isfinite(values).any()},
        groups={
            name: _category(table[name]) for name in table.column_names if name not in _NOT_GROUPS and is_text[name]
        },
        num_dropped=num_dropped,
    )


def _value_type(column: Any) -> Any:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.string() if pa.types.is_large_string(kind) else kind


def _floats(column: Any) -> Floats:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.fill_null(column.cast(pa.float64()), math.nan)
    return np.asarray(values.to_numpy(), dtype=np.float64)


def _category(column: Any) -> Category:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    elif pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pc.fill_null(column.cast(pa.string()), "(none)")
    encoded = text.combine_chunks().dictionary_encode()
    found = [str(name) for name in encoded.dictionary.to_pylist()]
    order = sorted(range(len(found)), key=found.__getitem__)
    position = np.empty(len(found), dtype=np.int64)
    position[order] = np.arange(len(found))
    codes = position[np.asarray(encoded.indices.to_numpy(), dtype=np.int64)]
    return Category(tuple(found[index] for index in order), codes)
