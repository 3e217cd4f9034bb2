"""Trackers beside `metrics.jsonl`: TensorBoard, Weights & Biases, trackio, each through Accelerate."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration
from torch.distributed import distributed_c10d

from homing.errors import RecipeError
from homing.launch import group_of

FOLDER = "trackers"
"""Where trackers put their files, inside the run folder."""
PROJECT = "homing"
_ARRIVAL = timedelta(minutes=10)  # for the processes of a group to find one another
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
        RecipeError: As `check_trackers`; or the environment asks for what there is not: processes, devices, packages.
    """
    check_trackers(names)
    place = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / FOLDER))
    arrival = InitProcessGroupKwargs(timeout=_ARRIVAL)
    on_cpus = group_of(os.environ)[1] > 1 and not torch.cuda.is_available()  # else each of them would run alone
    try:
        accelerator = Accelerator(
            cpu=on_cpus, log_with=list(names) or None, project_config=place, kwargs_handlers=[arrival]
        )
        torch.empty(1, device=accelerator.device)  # it is there
    except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
        refused = RecipeError(_why_not(error))
        refused.shared = not isinstance(error, dist.DistError)  # each that is alone has to say so itself
        raise refused from error
    if accelerator.num_processes > 1:
        set_timeout = getattr(dist, "set_timeout", distributed_c10d._set_pg_timeout)  # public from torch 2.14 on
        set_timeout(_PATIENCE)
        distributed_c10d._get_default_store().set_timeout(_PATIENCE)
    return accelerator


def _why_not(error: Exception) -> str:
    """Why no accelerator could be made, and which settings of the environment it follows from."""
    rank, world = group_of(os.environ)
    said = (str(error).splitlines() or [type(error).__name__])[0]
    names = sorted(
        name for name in os.environ if name.startswith(("ACCELERATE_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_"))
    )
    asked = " ".join(f"{name}={os.environ[name]}" for name in names)
    if world > 1 and isinstance(error, dist.DistError):
        return (
            f"process {rank} of {world} did not find the others within {_ARRIVAL.total_seconds():g} s ({asked}):"
            " start all of them, with torchrun; or where the environment is left over from a launcher, unset these"
        )
    return f"the devices cannot be set up ({said}), as the environment asks for: {asked or 'nothing of its own'}"


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
    with redirect_stdout(sys.stderr):  # some of them greet
        accelerator.init_trackers(PROJECT, config=_flat(recipe), init_kwargs=settings)
    try:
        yield
    finally:  # what they hold is written, however the run ends
        with redirect_stdout(sys.stderr):
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
