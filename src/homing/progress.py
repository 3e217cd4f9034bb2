"""What a run says while it works: bars on a terminal, one line a stage elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from homing.launch import is_main
from homing.terminal import in_lines

Advance = Callable[[float], None]


class Progress:
    """Stages of a run with a bar each. Silent in all processes but the main one.

    Args:
        quiet: Say nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet or not is_main()

    def say(self, text: str) -> None:
        """A line, or several."""
        if not self.quiet:
            print(in_lines(text), file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, title: str, total: float) -> Iterator[Advance]:
        """A stage of `total` units; yields a function to call with the units done since the last call."""
        started = time.monotonic()
        if self.quiet or not (sys.stderr.isatty() or in_notebook()):
            yield self._milestones(title, total)
            took = time.monotonic() - started
            self.say(f"{title}: done in {took:.1f} s")
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        console = Console() if in_notebook() else Console(stderr=True)
        with Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
            task = bars.add_task(title, total=total)
            yield lambda done: bars.advance(task, done)

    def _milestones(self, title: str, total: float) -> Advance:
        """A line at each quarter of a long stage, where there is no terminal to draw a bar on."""
        done, said, started = 0.0, 0, time.monotonic()

        def advance(count: float) -> None:
            nonlocal done, said
            done += count
            quarter = int(4 * done / total) if total else 4
            if quarter > said and quarter < 4 and time.monotonic() - started > 5:
                self.say(f"{title}: {25 * quarter} %")
            said = max(said, quarter)

        return advance


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter with widgets, whose cells show bars though its streams are no terminals."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" and find_spec("ipywidgets") is not None
