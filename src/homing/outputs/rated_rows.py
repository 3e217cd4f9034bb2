"""What is left behind where rows of tables were rated: rates, a report, and last `results.json`, the mark."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from homing.memory import peak_rss_mb
from homing.outputs.artefact import digest_of, write_json
from homing.outputs.pool_warnings import label_warnings, mixed_up_warnings
from homing.outputs.provenance import describe_data, versions
from homing.outputs.rates_file import write_rates
from homing.outputs.report.page import write_report
from homing.outputs.report.pictures import Shown
from homing.outputs.scorer_file import save_rows_scorer
from homing.outputs.thumbnails import pictures_of, rows_by_id
from homing.pools.class_matching import union_warnings
from homing.pools.pool import NoImages, Pool
from homing.pools.tables import Table
from homing.pools.vectors import Blocks
from homing.rates.learned.plan import RatePlan

_TEXT_COLUMNS = ("text", "sentence", "content", "caption", "document", "body", "abstract", "title")


@dataclass(frozen=True)
class RatedRows:
    """Rows of a source that were rated for a target.

    Attributes:
        source: Their ids and labels.
        table: That they are rows of.
        target: Ids and labels of the target.
        classes: Of both, sorted.
        plan: What was learned.
        asked: What was asked for, by name.
    """

    source: Pool
    table: Table
    target: Pool
    classes: tuple[str, ...]
    plan: RatePlan
    asked: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 of what was asked for."""
        return digest_of(json.dumps(dict(self.asked), sort_keys=True))


def write_rated(folder: Path, rated: RatedRows, *, seconds: float) -> dict[str, Any]:
    """Write all of it, and return what is in `results.json`.

    Args:
        folder: A new one of ours.
        rated: What was rated.
        seconds: Wall time so far.
    """
    plan, source = rated.plan, rated.source
    suggested = None
    if plan.suggested is not None:
        own = torch.from_numpy(source.label_indices(rated.classes))
        suggested = torch.where(plan.suggested == own, -1, plan.suggested)
    write_rates(
        folder / "rates.parquet",
        source,
        plan.rates,
        descriptors=plan.descriptors,
        visits=torch.zeros(len(source), dtype=torch.int32),
        suggested=suggested,
        classes=rated.classes,
    )
    assert plan.scorer is not None
    save_rows_scorer(folder / "scorer", plan.scorer, rated.classes)
    results = _results(rated, seconds)
    write_report(folder, shown_of(source, rated.table, rated.asked["text"]), results=results)
    write_json(folder / "results.json", results)
    return results


def _results(rated: RatedRows, seconds: float) -> dict[str, Any]:
    plan, target = rated.plan, rated.target
    return {
        "version": version("homing"),
        "recipe_sha256": rated.digest,
        "name": target.name,
        "method": "hierarchical",
        "seed": rated.asked["seed"],
        "rates": {"effective_sample_size": plan.effective_sample_size, "phi": plan.phi},
        "data": describe_data({"source": rated.source, "target": target}, rated.classes),
        "asked": dict(rated.asked),
        "dropped": [],
        "judged": plan.judged,
        "versions": versions(),
        "headline": "none",
        "target": None,
        "cost": {"seconds": round(seconds, 2), "source_gradients": 0, "peak_rss_mb": peak_rss_mb()},
        "baselines": {},
        "warnings": [
            *plan.warnings,
            *mixed_up_warnings(plan, rated.classes),
            *label_warnings(plan, target, rated.classes),
            *union_warnings(rated.source, target),
        ],
    }


def shown_of(source: Pool, table: Table, text: str | None) -> Shown:
    """What a report shows of rows: their pictures where they have some, and what they say.

    Args:
        source: Ids of the rows.
        table: The rows.
        text: Column of what they say; the first of the usual names where not given.
    """
    names = [text] if text else [name for name in table.names if name.lower() in _TEXT_COLUMNS]
    pictures = None if isinstance(source.store, NoImages) else pictures_of(source)
    return Shown(pictures, _texts_of(source, table, names[0]) if names else None)


def _texts_of(source: Pool, table: Table, name: str) -> Callable[[list[str]], list[str | None]]:
    def texts(ids: list[str]) -> list[str | None]:
        rows, blocks = rows_by_id(source.ids, set(ids)), Blocks(table.parts, name)
        wanted = np.array(sorted(rows.values()), np.int64)
        found: dict[int, str | None] = {}
        for number, places, inside in blocks.of(wanted):
            values = blocks.values(number).take(inside).to_pylist()
            said = (None if value is None else str(value) for value in values)
            found.update(zip(wanted[places].tolist(), said, strict=True))
        return [found.get(rows[sample_id]) if sample_id in rows else None for sample_id in ids]

    return texts
