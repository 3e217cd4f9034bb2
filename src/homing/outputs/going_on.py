"""How the recipe of a run may change while it goes on: more methods beside its own, a longer training, a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from homing.methods import METHODS
from homing.recipe.conflicts import LENGTHS
from homing.recipe.schema import Recipe

_LENGTHS = tuple(f"training.{name}" for name in LENGTHS)
_BASELINES = "evaluation.baselines"
_FREE = (*_LENGTHS, _BASELINES, "output.report")
_SHOWN = 4  # keys in a message


def is_prolonged(began: Recipe, now: Recipe) -> bool:
    """Whether a training is to be longer than it was begun."""
    return any(key in _LENGTHS for key in _changed(began, now))


def missing_methods(results: dict[str, Any], recipe: Recipe) -> tuple[str, ...]:
    """Methods that a recipe names and that a finished run did not train."""
    done = {results.get("method"), *results.get("baselines", {})}
    return tuple(name for name in recipe.methods if name not in done)


def why_not(began: Recipe, now: Recipe) -> str:
    """Why a run cannot go on with a recipe, naming the keys; nothing where it can."""
    changed = _changed(began, now)
    fixed = [key for key in changed if key not in _FREE]
    if fixed:
        told = [f"{key} was {_said(changed[key][0])}, is {_said(changed[key][1])}" for key in fixed[:_SHOWN]]
        return "; ".join(told + ([f"and {len(fixed) - _SHOWN} more"] if len(fixed) > _SHOWN else []))
    gone = [name for name in began.evaluation.baselines if name not in now.evaluation.baselines]
    if gone:
        return f"{_BASELINES} lacks {', '.join(gone)}; methods can be added, and not taken away"
    lengths = [key for key in _LENGTHS if key in changed]
    return _why_not_longer(began, now, lengths) if lengths else ""


def _why_not_longer(began: Recipe, now: Recipe, lengths: list[str]) -> str:
    key, *others = lengths
    before, after = ((getattr(recipe.training, key.rpartition(".")[2])) for recipe in (began, now))
    if others or key == "training.minutes" or not began.trains or not now.trains:
        was, is_now = (_length_of(recipe) for recipe in (began, now))
        return f"{was}, is {is_now}; a training can be prolonged by the same key alone, in epochs or steps"
    if after < before:
        return f"{key} was {before:g}, is {after:g}; a training can be prolonged, and not shortened"
    if hindrance := next(_hindrances(now), None):
        return f"{key} was {before:g}, is {after:g}, and {hindrance}"
    return ""


def _length_of(recipe: Recipe) -> str:
    given = {key: getattr(recipe.training, key) for key in LENGTHS}
    return next(f"training.{key} {value:g}" for key, value in given.items() if value is not None)


def _hindrances(recipe: Recipe) -> Iterator[str]:
    """Settings by which steps that were taken already would have been others in a longer training."""
    training = recipe.training
    if training.schedule != "constant":
        yield f"training.schedule: {training.schedule} depends on the last step (constant does not)"
    if training.warmup:
        yield f"training.warmup: {training.warmup:g} is a share of all steps (0 is not)"
    if recipe.averaged_share:
        yield f"training.average_last: {recipe.averaged_share:g} is a share of all steps (0 is not)"
    if METHODS[recipe.rates.method].source_share:
        yield f"rates.method: {recipe.rates.method} divides all steps between source and target"


def _said(value: Any) -> str:
    return "not given" if value is None else str(value)


def _changed(began: Recipe, now: Recipe) -> dict[str, tuple[Any, Any]]:
    """Key path → (before, after) of each setting that differs."""
    before, after = (dict(_flat("", recipe.model_dump(mode="json"))) for recipe in (began, now))
    keys = dict.fromkeys((*before, *after))
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else key, inner)
    else:
        yield path, value
