"""A signal asks a run to finish its step and save; a second one ends it at once.

Terminals send INT and HUP, systems TERM, and schedulers of clusters USR1 or USR2 some time before they end a job.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from homing.errors import Interrupted

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class StopOnSignal:
    """While this context is open, the first of `SIGNALS` only sets `asked`."""

    def __init__(self) -> None:
        self.asked = False
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # under nohup: the terminal may go
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.signal = True, number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)


def stoppable(advance: Callable[[float], None], stop_asked: Callable[[], bool]) -> Callable[[float], None]:
    """The same, but ends the run where a stop was asked for outside of training; what was saved stays."""

    def advance_or_stop(count: float) -> None:
        if stop_asked():
            raise Interrupted("stopped outside of training; go on with --resume")
        advance(count)

    return advance_or_stop


@contextmanager
def going_on_with_the_scan() -> Iterator[None]:
    """What cannot be resumed is begun again when it was stopped: what was scanned is there by then."""
    try:
        yield
    except Interrupted as error:
        error.args = (f"{str(error).partition(';')[0]}; the same command goes on with what was scanned until then",)
        raise
