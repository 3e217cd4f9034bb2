"""Which models a run kept, in words: nobody is told to use one that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homing.measures import MEASURES
from homing.outputs.report.data import mapping, number
from homing.outputs.titles import title_of
from homing.terminal import counted


def how_to_use(name: str, models: Mapping[str, Any]) -> str:
    """What to do to use the model of a method that turned out better than the run's own; without its full stop.

    Args:
        name: Of the method.
        models: As in `results.json`; empty for runs of before there was any choice.
    """
    if models.get("shipped") == name:
        return "it is what `model/` holds"
    if name in (models.get("kept") or ()):
        return f"predict, evaluate and export take it with `--method {name}`"
    return f"its model was not kept: train it with `rates.method={name}`"


def shipped_line(results: dict[str, Any]) -> str:
    """How `model/` came to be what it is, where folds of the target chose it; else nothing."""
    models = mapping(results.get("models"))
    chosen = mapping(models.get("chosen_on"))
    if not chosen:
        return ""
    shipped, against, gain = str(models.get("shipped")), chosen.get("against"), mapping(chosen.get("gain"))
    mean, low, high = (number(gain.get(end)) for end in ("mean", "low", "high"))
    text = f"`model/` holds “{title_of(shipped)}”, which the target's {chosen.get('folds')} folds prefer"
    if results.get("headline") == "cross_validated":
        text += " (chosen and measured on the same images, so its figure is a little too good)"
    if against is None or mean is None or low is None or high is None:
        return f"{text}."
    other, images = f"“{title_of(str(against))}”", counted(int(number(chosen.get("num_target")) or 0), "image")
    if mean == 0:
        return f"{text}: as often right as {other} on {images}, at a lower loss."
    measure = MEASURES.get(str(chosen.get("metric")), MEASURES["accuracy"])
    gained = f"{measure.difference(mean)} points of {measure.word}"
    return f"{text}: {gained} [{measure.difference(low)}, {measure.difference(high)}] against {other}, on {images}."
