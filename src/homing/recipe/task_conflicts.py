"""Settings that cannot go with the task of a recipe: one class an image, or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_ROLES = ("source", "target", "test")


def conflicts_of_task(
    tree: dict[str, Any], pools_of: Callable[[Any], list[Any]]
) -> Iterator[tuple[tuple[str, str], str]]:
    """What of a recipe's data does not go with its task, as (key path, what is wrong).

    Args:
        tree: A recipe as a nested mapping; it need not be valid.
        pools_of: The pools that a role's value names.
    """
    several = tree.get("task") == "multi_label"
    evaluation = tree.get("evaluation")
    metric = evaluation.get("metric", "accuracy") if isinstance(evaluation, dict) else "accuracy"
    if several and metric != "accuracy":
        yield (
            ("evaluation", "metric"),
            f"evaluation.metric: {metric} cannot go with task: multi_label, whose methods are judged by mean average"
            " precision; leave it out",
        )
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    for role in _ROLES:
        for pool in (pool for pool in pools_of(data.get(role)) if isinstance(pool, dict)):
            columns, labels = pool.get("label_columns"), pool.get("labels", "shared")
            if columns and not several:
                yield (
                    ("data", role),
                    f"data.{role}.label_columns gives an image several classes; set task: multi_label, or name the"
                    " column of the one class with label_column",
                )
            if columns and pool.get("label_column"):
                yield ("data", role), f"data.{role}: label_column and label_columns both name labels; give one of them"
            if several and labels != "shared":
                yield (
                    ("data", role),
                    f"data.{role}.labels: {labels} cannot go with task: multi_label, which takes the same classes in"
                    " all pools; leave labels out",
                )
    if several and data.get("unlabelled") is not None:
        yield (
            ("data", "unlabelled"),
            "data.unlabelled cannot go with task: multi_label, a guess is of one class; leave it out",
        )
