"""A comparison over seeds as rows of the report's table: a method's mean, and the run's paired gain over it."""

from __future__ import annotations

from typing import Any

from homing.measures import headline_of
from homing.methods import title_of
from homing.outputs.report.data import mapping, number
from homing.outputs.report.verdict import Score, is_oracle


def compared_scores(table: dict[str, Any]) -> list[Score]:
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
        is_run = name == own
        rows.append(
            Score(
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
            )
        )
    return sorted(rows, key=lambda row: (-measure.gain(row.value), not row.is_run))
