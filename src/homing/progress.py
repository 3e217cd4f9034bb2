"""What a run says while it works: bars on a terminal, a line every few seconds elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from homing.forecast import Forecast, about, duration
from homing.launch import is_main
from homing.terminal import in_lines

Advance = Callable[[float], None]
_FIRST, _LAST = 5.0, 60.0  # seconds between two lines: of a new stage, and of one that has gone on for long
_BAR = 0.5  # seconds between two looks at the loss beside a bar
_GUESS = 3.0  # seconds of a scan, after which a guess of the run is made


def _nothing() -> str:
    return ""


class Progress:
    """Stages of a run with a bar each. Silent in all processes but the main one.

    Args:
        quiet: Say nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet or not is_main()
        self.forecast: Forecast | None = None

    def say(self, text: str) -> None:
        """A line, or several."""
        if not self.quiet:
            print(in_lines(text), file=sys.stderr, flush=True)

    def expect(self, forecast: Forecast) -> None:
        """Know what is to come, to say how long the whole run takes."""
        self.forecast = forecast

    @contextmanager
    def stage(self, title: str, total: float, note: Callable[[], str] = _nothing) -> Iterator[Advance]:
        """A stage of `total` units.

        Args:
            title: Of the stage.
            total: Units; 1 for shares.
            note: What to say beside how far it is; asked now and then.

        Yields:
            A function to call with the units done since the last call.
        """
        started = time.monotonic()
        if self.quiet or not (sys.stderr.isatty() or in_notebook()):
            yield self._lines(title, total, note)
            self.say(f"{title}: done in {time.monotonic() - started:.1f} s")
            return
        with self._bar(title, total, note) as advance:
            yield advance

    @contextmanager
    def shares(self, title: str) -> Iterator[Advance]:
        """A stage that is told the share of it that is done, 0..1, never falling."""
        with self.stage(title, 1.0) as advance:
            done = 0.0

            def tell(share: float) -> None:
                nonlocal done
                advance(share - done)
                done = share

            yield tell

    @contextmanager
    def training(self, title: str, steps: int, note: Callable[[], str] = _nothing) -> Iterator[Advance]:
        """A stage of the steps of a training, which tells of the whole run too."""
        forecast = self.forecast or Forecast([steps])
        forecast.begin()
        is_last = not forecast.goes_beyond(steps)  # what is left of it is what is left of the run, and told once

        def beside() -> str:
            left = None if is_last else forecast.seconds_left()
            return ", ".join(filter(None, [note(), "" if left is None else f"run: {duration(left)} left"]))

        with self.stage(title, steps, beside) as advance:

            def did(count: float) -> None:
                forecast.did(int(count))
                if news := forecast.news():
                    self.say(news)
                advance(count)

            yield did

    @contextmanager
    def scan(self, title: str, total: int) -> Iterator[Advance]:
        """A stage of images that go through a model, which guesses how long the run takes."""
        started, done, is_told = time.monotonic(), 0.0, self.forecast is None
        with self.stage(title, total) as advance:

            def did(count: float) -> None:
                nonlocal done, is_told
                done += count
                took = time.monotonic() - started
                if not is_told and took > _GUESS and self.forecast is not None and done:
                    is_told = True
                    if guess := self.forecast.before((total - done) * took / done, took / done):
                        self.say(guess)
                advance(count)

            yield did

    @contextmanager
    def _bar(self, title: str, total: float, note: Callable[[], str]) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False)]
        with Bars(*columns, console=Console(stderr=not in_notebook())) as bars:
            task, looked = bars.add_task(title, total=total, note=""), time.monotonic()

            def advance(count: float) -> None:
                nonlocal looked
                if (now := time.monotonic()) - looked > _BAR:
                    looked = now
                    bars.update(task, note=note())
                bars.advance(task, count)

            yield advance

    def _lines(self, title: str, total: float, note: Callable[[], str]) -> Advance:
        """A line every few seconds, where there is no terminal to draw a bar on."""
        done, started = 0.0, time.monotonic()
        due = started + _FIRST
        first: tuple[float, float] | None = None  # when the first units were done, and how many

        def advance(count: float) -> None:
            nonlocal done, due, first
            done += count
            now = time.monotonic()
            first = first or (now, done)
            if self.quiet or now < due or done >= total:
                return
            due = now + min(max(_FIRST, (now - started) / 10), _LAST)
            far = f"{100 * done / total:.0f} %" if total <= 1 else f"{done:,.0f} of {total:,.0f}"
            since, then = first
            left = f"{about((now - since) * (total - done) / (done - then))} left" if done > then else ""
            self.say(f"{title}: {', '.join(filter(None, [far, left, note()]))}")

        return advance


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter with widgets, whose cells show bars though its streams are no terminals."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" and find_spec("ipywidgets") is not None
