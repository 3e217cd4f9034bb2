"""Files that a pool reads ranges of, here or in object storage, as they looked when they were listed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from homing.errors import DataError
from homing.pools.files import file_state, open_regular, unreadable

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 100_000


class StoredFile(Protocol):
    """One file. Every read fails where it is no longer what was listed.

    Attributes:
        where: Its path or URL.
        name: The last part of that.
        size: Bytes.
        key: Path or URL, size, and time of change or etag, as a text.
    """

    where: str
    name: str
    size: int
    key: str

    def open(self) -> BinaryIO:
        """The file, to read and seek in; raises OSError."""
        ...

    def read(self, start: int, size: int) -> bytes:
        """Some bytes, from any thread; fewer at the end of the file; raises OSError."""
        ...

    def state(self) -> bytes | None:
        """16 bytes that change whenever the file may have; None where it is gone."""
        ...


class LocalFile:
    """A file of this machine.

    Raises:
        OSError: It is not there, or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.where, self.name, self._path = str(path), path.name, path
        with open_regular(path) as file:
            self._found = _look(file)
        self.size = self._found[0]
        self.key = f"{path.absolute()}\0{self._found[0]}\0{self._found[1]}"

    def open(self) -> BinaryIO:
        """The file, with a buffer that holds little more than headers."""
        return self._opened(1 << 13)

    def read(self, start: int, size: int) -> bytes:
        """Some bytes: opened for each read, as an image file is, so that few files are open at a time."""
        with self._opened(0) as file:
            file.seek(start)
            return file.read(max(0, min(size, self.size - start)))

    def state(self) -> bytes | None:
        """Of path, size and time of change, as they are now."""
        return file_state(self._path.absolute())

    def _opened(self, buffering: int) -> BinaryIO:
        file = open_regular(self._path, buffering)
        if _look(file) != self._found:
            file.close()
            raise unreadable(f"{self.where} was changed since its rows were listed; start again")
        return file


def _look(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def expanded(pattern: str) -> list[str]:
    """The paths that a pattern with braces stands for: `{000..127}` counts, `{a,b}` lists; several multiply.

    Raises:
        DataError: A pair of braces holds neither, or there are more than 100,000 paths.
    """
    found: list[str] = []
    for path in _expanded(pattern):
        found.append(path)
        if len(found) > _MOST:
            raise DataError(f"{pattern}: stands for more than {_MOST:,} paths; give fewer, larger shards")
    return found


def _expanded(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    for choice in _choices(braces.group(1), pattern):
        for rest in _expanded(after):
            yield f"{before}{choice}{rest}"


def _choices(inside: str, pattern: str) -> Iterator[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None:
        if "," not in inside:
            raise DataError(f"{pattern}: the braces hold {inside!r}; write a range, {{0000..0127}}, or a list, {{a,b}}")
        yield from inside.split(",")
        return
    first, last = counted.groups()
    if int(last) < int(first) or len(first) > 18 or len(last) > 18:
        raise DataError(f"{pattern}: the range {inside!r} does not count upwards; write {{0000..0127}}")
    width = len(first) if first.startswith("0") else 0
    yield from (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
