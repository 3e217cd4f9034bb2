"""How long a run takes: the steps of all its trainings, those that are done, and the time of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

Clock = Callable[[], float]
_ENOUGH = 5  # timed steps
_FACTORS = {"all": 3.0, "last_stage": 1.0, "head": 0.0}  # time of a trained image, in images scanned


class Forecast:
    """What is left of the trainings of a run, by the time of the steps so far.

    Args:
        lengths: Steps of each training.
        images: Of a step.
        trainable: all, last_stage or head.
        minutes: What the trainings may take, where their length follows from that.
        clock: Seconds since some moment.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        images: int = 0,
        trainable: str = "all",
        minutes: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.lengths, self._images, self._factor, self._minutes = tuple(lengths), images, _FACTORS[trainable], minutes
        self._left, self._timed, self._seconds, self._clock = sum(lengths), 0, 0.0, clock
        self._last: float | None = None
        self._begins, self._is_told, self._is_guessed = True, False, False

    def begin(self) -> None:
        """A training begins: its first call of `did` is of steps that an earlier attempt made."""
        self._begins, self._last = True, None

    def did(self, steps: int) -> None:
        """Steps were made; the first one of a training, which warms up, is not timed."""
        self._left = max(0, self._left - steps)
        if self._begins:
            self._begins = False
            return
        now = self._clock()
        if self._last is not None:
            self._timed, self._seconds = self._timed + steps, self._seconds + now - self._last
        self._last = now

    def goes_beyond(self, steps: int) -> bool:
        """Whether more is left than so many steps."""
        return self._left > steps

    def seconds_left(self) -> float | None:
        """Of all trainings; None where too few steps were timed."""
        return self._left * self._seconds / self._timed if self._timed >= _ENOUGH else None

    def news(self) -> str:
        """What is to be told of the whole run, once, as soon as steps were timed."""
        left = self.seconds_left()
        if self._is_told or left is None:
            return ""
        self._is_told = True
        return f"{about(left)}: {self._trainings()}, {self._seconds / self._timed:.2g} s a step" if left >= 20 else ""

    def before(self, scan_left: float, seconds_an_image: float) -> str:
        """The same while images are scanned, by the time of those: a rough guess, told once."""
        if self._is_guessed:
            return ""
        self._is_guessed = True
        trained = sum(self.lengths) * self._images * self._factor * seconds_an_image
        if self._minutes is not None:
            trained = 60 * self._minutes
        if scan_left + trained < 60:
            return ""
        parts = [f"scan {duration(scan_left)}", f"then {self._trainings()}"]
        return f"{about(scan_left + trained)}: {', '.join(parts)}" if trained else f"{about(scan_left)}: {parts[0]}"

    def _trainings(self) -> str:
        if self._minutes is not None:
            return f"trainings within {self._minutes:g} min"
        count, longest = sum(length > 0 for length in self.lengths), max(self.lengths, default=0)
        return f"{count} training{'s' if count > 1 else ''} of {longest:,} steps"


def about(seconds: float) -> str:
    """A forecast, in as few digits as it is worth."""
    return f"about {duration(seconds)}"


def duration(seconds: float) -> str:
    """Seconds in the units that people would say them in."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 5970:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 99 * 3600 else f"{seconds / 86400:.1f} days"
