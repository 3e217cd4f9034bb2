"""What kind of run a folder holds, where a verb needs another kind: one sentence that says which."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from homing.errors import DataError

_KINDS: dict[str, type | tuple[type, ...]] = {
    "method": str,
    "seed": int,
    "target": (dict, type(None)),
    "data": dict,
    "rates": dict,
    "cost": dict,
    "baselines": dict,
    "warnings": list,
    "dropped": list,
    "targets": dict,
    "version": str,
    "recipe_sha256": str,
    "headline": str,
    "models": dict,
    "calibration": (dict, type(None)),
    "rates.phi": dict,
    "rates.effective_sample_size": (int, float),
    "data.source": dict,
    "data.target": dict,
}
"""What values are that stand under some keys, those below others with dots."""
OF_ONE_TARGET = (
    *("method", "seed", "target", "rates", "cost", "baselines", "warnings"),
    *("version", "recipe_sha256", "data", "headline"),
)
"""What `results.json` says of every run of one target."""


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


def results_of(run: Path, needed: Iterable[str] = ()) -> dict[str, Any]:
    """`results.json` of a finished run.

    Args:
        run: Its folder.
        needed: Keys that it must have.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = run / "results.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wrong = _wrong(found, needed)
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file, so there is no finished run here; give a folder of `homing run`"
        ) from None
    except (ValueError, RecursionError) as error:
        wrong = f"not valid JSON: {error}"
    if wrong:
        raise DataError(f"{path}: is damaged ({wrong}); remove it, and `homing run … --resume` writes it again")
    return dict(found)


def lost(path: Path, run: Path) -> DataError:
    """The error to raise where a file is gone that every finished run has: going on alone does not make it again."""
    again, began = "rate the rows again", run / "recipe.yaml"
    if began.exists():
        again = f"remove {run / 'results.json'}, and `homing run {began} --output {run} --resume` makes both again"
    return DataError(f"{path}: no such file, though this run is complete; put it back, or {again}")


def _wrong(found: Any, needed: Iterable[str]) -> str:
    """What is wrong with the content of a `results.json`; nothing where all is well."""
    if not isinstance(found, dict):
        return "no JSON object"
    if missing := [key for key in needed if key not in found]:
        return f"it lacks {', '.join(missing)}"
    warnings = found.get("warnings")
    if isinstance(warnings, list) and not all(isinstance(text, str) for text in warnings):
        return "warnings are no texts"
    return ", ".join(
        f"{key} is {json.dumps(value)[:40]}"
        for key, kind in _KINDS.items()
        for value in _under(found, key.split("."))
        if not isinstance(value, kind)
    )


def _under(found: Any, keys: list[str]) -> Iterator[Any]:
    """What stands under keys that lie below each other, if anything does."""
    if not keys:
        yield found
    elif isinstance(found, dict) and keys[0] in found:
        yield from _under(found[keys[0]], keys[1:])


def _results(run: Path) -> dict[str, Any]:
    """What `results.json` says; nothing where there is none, or it cannot be read: others tell that better."""
    with suppress(DataError, OSError):
        return results_of(run)
    return {}
