"""A comparison over seeds: its rows as the verdict reads them, and its page, one HTML file without network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from homing.measures import headline_of
from homing.methods import title_of
from homing.outputs.report.axis import axis_of
from homing.outputs.report.data import mapping, number
from homing.outputs.report.page import assets, environment
from homing.outputs.report.tables import flatten, show
from homing.outputs.report.verdict import Score, columns_of, is_oracle, reference, verdict


@dataclass(frozen=True)
class SeededScore(Score):
    """A method of a comparison.

    Attributes:
        by_seed: The value of each seed.
        spread: Their standard deviation as text; empty for a single seed.
    """

    by_seed: tuple[float, ...] = ()
    spread: str = ""


def comparison_page(name: str, table: dict[str, Any]) -> str:
    """The page of a comparison: verdict, every method, every seed, cost.

    Args:
        name: Of the recipe.
        table: The content of `comparison.json`.
    """
    rows = compared_scores(table)
    measure = rows[0].measure
    present = {key for row in rows for key, value in row.values.items() if number(value) is not None}
    versions = flatten(mapping(table.get("versions")))
    context = {
        **assets(),
        "name": name,
        "scores": rows,
        "own": next(row for row in rows if row.is_run),
        "reference": reference(rows),
        "verdict": verdict(rows),
        "measure": measure,
        "axis": axis_of([value for row in rows for value in row.by_seed], measure),
        "columns": columns_of(present, measure),
        "seeds": table["seeds"],
        "num_test": table["num_test"],
        "versions": {key: show(value) for key, value in versions.items()},
    }
    return environment().get_template("compare.html.j2").render(context)


def compared_scores(table: dict[str, Any]) -> list[SeededScore]:
    """The methods of a comparison, best first, as the verdict reads them.

    Args:
        table: The content of `comparison.json`.
    """
    measure, own = headline_of(table), table["own_method"]
    at = {row["method"]: row[measure.key] for row in table["methods"]}
    rows = []
    for row in table["methods"]:
        name, value = row["method"], row[measure.key]
        paired = mapping(mapping(row.get("gains")).get(measure.key))
        is_run, spread = name == own, row[f"{measure.key}_sd"]
        rows.append(
            SeededScore(
                "homing" if is_run else name,
                title_of(name),
                measure,
                value,
                None,
                None,
                is_run,
                is_oracle(name),
                None if is_run else at[own] - value,
                number(paired.get("low")),
                number(paired.get("high")),
                row,
                by_seed=tuple(row["by_seed"][measure.key]),
                spread="" if spread is None else measure.plain(spread),
            )
        )
    return sorted(rows, key=lambda row: (-measure.gain(row.value), not row.is_run))
