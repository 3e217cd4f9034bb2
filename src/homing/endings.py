"""How a run ends: what is removed once it is complete, and what is left of one that ended early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

from homing.errors import DataError, DivergedError, Interrupted
from homing.interrupts import StopOnSignal
from homing.outputs.finished import tidy
from homing.outputs.ownership import DIVERGENCE
from homing.outputs.run_folder import discard_stump, note_divergence, remove_features


def clean_up(folder: Path) -> None:
    """Remove what served until the run was complete: checkpoints, its features, the note of an earlier divergence."""
    tidy(folder)
    remove_features(folder)
    (folder / DIVERGENCE).unlink(missing_ok=True)


@contextmanager
def endings(
    folder: Path, digest: str, accelerator: Accelerator, stop: StopOnSignal, *, is_new: bool, was_there: bool
) -> Iterator[None]:
    """No stump for bad data, `divergence.json` for what is not finite, a signal's exit code.

    Args:
        folder: Of the run.
        digest: Of its recipe.
        accelerator: Of the run; its main process writes.
        stop: What knows the signal that ended it.
        is_new: Whether the run began now, and was not gone on with.
        was_there: Whether somebody else made the folder, so that it stays.
    """
    try:
        yield
    except DataError:
        if is_new and accelerator.is_main_process:  # what is gone on with was begun before, and keeps its recipe
            discard_stump(folder, was_there=was_there)
        raise
    except DivergedError as error:
        if accelerator.is_main_process:
            note_divergence(folder, digest, {"message": str(error), **(error.details or {})}, is_new=is_new)
        raise
    except Interrupted as error:
        if stop.signal is not None:
            error.exit_code = 128 + stop.signal
        raise
