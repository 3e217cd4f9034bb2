"""Trackers beside `metrics.jsonl`: TensorBoard, Weights & Biases, trackio, each through Accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from homing.errors import RecipeError

FOLDER = "trackers"
"""Where trackers put their files, inside the run folder."""
PROJECT = "homing"
_PATIENCE = timedelta(days=7)  # of a collective: the main process may learn rates for long; see `liveness`


def check_trackers(names: Sequence[str]) -> None:
    """Make sure that the packages of all trackers are installed.

    Raises:
        RecipeError: Names those that are not, and the extras that bring them.
    """
    if missing := [name for name in names if find_spec(name) is None]:
        extras = ",".join(missing)
        raise RecipeError(
            f"output.trackers: {', '.join(missing)} cannot be imported; pip install 'homing[{extras}]', or leave it out"
            " (metrics.jsonl is always written)"
        )


def tracking_accelerator(names: Sequence[str], folder: Path) -> Accelerator:
    """The one maker of a run's accelerator: it knows these trackers, which open with `tracking`.

    Raises:
        RecipeError: As `check_trackers`.
    """
    check_trackers(names)
    place = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / FOLDER))
    patient = InitProcessGroupKwargs(timeout=_PATIENCE)
    return Accelerator(log_with=list(names) or None, project_config=place, kwargs_handlers=[patient])


@contextmanager
def tracking(accelerator: Accelerator, name: str, recipe: Mapping[str, Any]) -> Iterator[None]:
    """Keep the trackers open, in the main process.

    Args:
        accelerator: From `tracking_accelerator`.
        name: What to call the run.
        recipe: Goes along as the run's configuration, its keys joined by dots.
    """
    if not accelerator.log_with:
        yield
        return
    folder = Path(accelerator.logging_dir)
    folder.mkdir(parents=True, exist_ok=True)
    known = {"wandb": {"name": name, "dir": str(folder)}, "trackio": {"name": name}}
    kinds = {str(kind) for kind in accelerator.log_with}
    settings = {kind: values for kind, values in known.items() if kind in kinds}
    accelerator.init_trackers(PROJECT, config=_flat(recipe), init_kwargs=settings)
    try:
        yield
    finally:  # what they hold is written, however the run ends
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers = []


def track(accelerator: Accelerator, values: Mapping[str, Any], step: int) -> None:
    """Hand the numbers among some values to every open tracker."""
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    if accelerator.trackers and numbers:
        accelerator.log(numbers, step=step)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return flat
