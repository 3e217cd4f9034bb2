"""Methods that were added to a finished run: its files hold them beside those that were there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from homing.errors import CheckpointError
from homing.memory import peak_rss_mb
from homing.outputs.facts import RunFacts
from homing.outputs.finished import finish, read_results
from homing.outputs.results import figures, folds_of, predictions

if TYPE_CHECKING:
    from homing.evaluation.outcome import Outcome


def write_added(facts: RunFacts, outcomes: Sequence[Outcome], *, seconds: float) -> dict[str, Any]:
    """Write what a finished run leaves behind with more methods, and return what is in `results.json`.

    Args:
        facts: The run, of the same pools.
        outcomes: Of the methods that are new.
        seconds: Wall time that they took.

    Raises:
        CheckpointError: What the run measured is damaged, or was measured on other images.
    """
    before = read_results(facts.folder)
    found = _joined(facts.folder / "predictions.safetensors", predictions(facts, outcomes))
    folds = folds_of(facts, outcomes)
    if folds:
        folds = _joined(facts.folder / "folds.safetensors", folds)
    names = [before["method"], *before["baselines"], *(item.method.name for item in outcomes)]
    ordered = {name: found[name] for name in dict.fromkeys([*names, "labels"])}
    results = {**before, "recipe_sha256": facts.asked.recipe_sha256, **figures(facts, ordered)}
    results["cost"] = _cost(before["cost"], outcomes, seconds)
    return finish(facts, results, outcomes, ordered, folds)


def _joined(path: Path, new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits of all methods, those of earlier ones out of their file."""
    try:
        old = load_file(path)
        same = torch.equal(old["labels"], new["labels"])
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}), so no method can be added; run all of them with --overwrite"
        ) from error
    if not same:
        raise CheckpointError(
            f"{path}: was measured on other images, so no method can be added; run all of them with --overwrite"
        )
    return {**old, **new}


def _cost(before: dict[str, Any], outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """What the run cost altogether."""
    took = {item.method.name: round(item.seconds, 2) for item in outcomes}
    gradients = {item.method.name: item.fitted.gradients for item in outcomes}
    return before | {
        "seconds": round(before["seconds"] + seconds, 2),
        "peak_rss_mb": max(before["peak_rss_mb"], peak_rss_mb()),
        "method_seconds": before.get("method_seconds", {}) | took,
        "method_gradients": before.get("method_gradients", {}) | gradients,
    }
