"""What the parts of a run took over all its attempts: a run that is cut off and goes on pays once for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from homing.outputs.ownership import marked, note

_SECONDS = "seconds"


@contextmanager
def spending(folder: Path, part: str, *, writes: bool, started: float | None = None) -> Iterator[Callable[[], float]]:
    """Count the wall time of a part of a run, that of earlier attempts included as far as they came to an end.

    Args:
        folder: Of the run; what was spent stands in its mark until the run is complete.
        part: Name of a method; or a name of the whole.
        writes: Whether this process is the one that writes.
        started: On the clock of `time.monotonic`, where the part began before the block.

    Yields:
        Gives the seconds so far. Those of an attempt that was killed outright are not among them.
    """
    since = time.monotonic() if started is None else started
    before = _noted(folder).get(part, 0.0)

    def spent() -> float:
        return before + time.monotonic() - since

    try:
        yield spent
    finally:
        if writes and marked(folder) and not (folder / "results.json").exists():
            with suppress(OSError):  # a full disk has ended the run already
                note(folder, **{_SECONDS: _noted(folder) | {part: round(spent(), 2)}})


def forget_spent(folder: Path) -> None:
    """A run that is complete has what was spent in its results."""
    note(folder, **{_SECONDS: {}})


def _noted(folder: Path) -> dict[str, float]:
    found = marked(folder).get(_SECONDS)
    known = found.items() if isinstance(found, dict) else ()
    return {part: float(value) for part, value in known if isinstance(value, int | float)}
