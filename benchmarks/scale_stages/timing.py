"""Where the seconds of a run go, and a run that ends at a step: the program's own functions, with a clock around."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def clocked(found: dict[str, float]) -> None:
    """From now on in this process, seconds of a run's list + scan, rates and fits are added up in `found`."""
    from homing import flow
    from homing.evaluation.planning import Planner

    places: tuple[tuple[Any, str, str], ...] = (
        (flow, "prepare", "scan_seconds"),
        (Planner, "plan", "rates_seconds"),
        (Planner, "rates", "rates_seconds"),
        (flow, "fit", "fit_seconds"),
    )
    depth: dict[str, int] = {}
    for owner, name, column in places:
        setattr(owner, name, _clocked(getattr(owner, name), found, column, depth))


def _clocked(real: Callable[..., Any], found: dict[str, float], column: str, depth: dict[str, int]) -> Any:
    @functools.wraps(real)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.monotonic()
        depth[column] = depth.get(column, 0) + 1
        try:
            return real(*arguments, **named)
        finally:
            depth[column] -= 1
            if not depth[column]:  # `plan` calls `rates`: counted once
                found[column] = round(found.get(column, 0.0) + time.monotonic() - started, 2)

    return timed


def stop_after(step: int) -> None:
    """From now on in this process, a fine-tuning is asked to stop, as by a signal, after so many steps."""
    from homing.training.loop import FineTuning

    real = FineTuning.__init__

    def stopping(self: Any, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        self.stop_asked = lambda: self.step >= step

    FineTuning.__init__ = stopping  # type: ignore[method-assign]


def each_step(call: Callable[[], None]) -> None:
    """From now on in this process, call a function after every step."""
    from homing.training.loop import FineTuning

    real = FineTuning.take_step

    def told(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        call()

    FineTuning.take_step = told  # type: ignore[method-assign]


def recipe_of(data: dict[str, Any], store: Path | str, **sections: Any) -> Any:
    """A recipe over some pools; features go to a folder."""
    from homing.recipe.schema import Recipe

    return Recipe.model_validate({"data": data, "output": {"cache": str(store), "cache_gb": 100}} | sections)
