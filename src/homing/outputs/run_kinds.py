"""What kind of run a folder holds, where a verb needs another kind: one sentence that says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from homing.errors import DataError


def targets_of(run: Path) -> tuple[str, ...]:
    """Names of the targets of a run over several of them; none for a run of one target."""
    return tuple(_results(run).get("targets", ()))


def check_one_target(run: Path) -> None:
    """Whether a run is one of a single target.

    Raises:
        DataError: It is one over several; says where each of them lies.
    """
    if names := targets_of(run):
        places = ", ".join(str(run / name) for name in names)
        raise DataError(f"{run}: is a run over several targets, each in a folder of its own; give one of {places}")


def is_of_rows(run: Path) -> bool:
    """Whether a run rated the rows of tables, which brought their features along."""
    return "asked" in _results(run)


def check_has_model(run: Path) -> None:
    """Whether a run is one that leaves a model behind; one that is not finished yet is.

    Raises:
        DataError: It is one over several targets, or stopped after its rates.
    """
    check_one_target(run)
    if _results(run).get("headline") == "none" and not (run / "model").exists():
        raise DataError(
            f"{run}: holds rates only, no model: nothing was trained; `homing corpus` and `homing score` use its rates,"
            " `homing run` with training.epochs above 0 trains a model"
        )


def results_of(run: Path) -> dict[str, Any]:
    """`results.json` of a finished run.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = run / "results.json"
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file, so there is no finished run here; give a folder of `homing run`"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON ({error}); run the recipe again") from error
    return results


def _results(run: Path) -> dict[str, Any]:
    """What `results.json` says; nothing where there is none, or it cannot be read: others tell that better."""
    try:
        found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
