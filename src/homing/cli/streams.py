"""Standard streams that a run does not trip over: closed ones, readers that left, full disks, alphabets too small.

Results go to standard output, where a loss is an error. Everything else goes to standard error, where it is not: a run
of days does not end because the terminal that showed its progress is gone.
"""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING

from homing.errors import HomingError
from homing.terminal import in_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer


class ReaderLeft(HomingError):
    """Whoever read standard output has closed it; as of any program in a pipe, nothing is said of it."""

    exit_code = 141  # 128 + SIGPIPE


def settle_streams() -> None:
    """Make the standard streams usable, whatever this process was given; called once, by the program alone.

    What is closed leads nowhere from now on: else the next file that is opened would get its number, and with it
    whatever a library prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)
    # a stream that somebody put in place of the process's own stays
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Remarks(2, "w", closefd=False), sys.stderr, line_by_line=True)


def _text(raw: io.FileIO, before: object, *, line_by_line: bool = False) -> io.TextIOWrapper:
    """In the encoding of the stream that was; letters that it lacks are written as their code points."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=line_by_line or raw.isatty(),
    )


class ForEyes:
    """Rows that go to a terminal: their names move no cursor there. As many of a file's ways as writers of rows use."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self._stream.write(in_lines(text))

    def writelines(self, texts: Iterable[str]) -> None:
        """Write several."""
        for text in texts:
            self.write(text)


class _Results(io.FileIO):
    _is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._is_lost = True  # the interpreter writes what is left once more when it ends
            if isinstance(error, BrokenPipeError):
                raise ReaderLeft from None
            raise OSError(error.errno, error.strerror, "standard output") from None


class _Remarks(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes
