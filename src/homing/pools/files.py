"""Image files by row, and reading of regular files alone: never a pipe, a device, a folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from homing.pools.pool import STATE_BYTES
from homing.pools.rows import StoreRows
from homing.pools.texts import Texts

MAX_FILE_BYTES = 1 << 30
"""A larger file is no picture (the largest that a recipe may allow, 178 megapixels of 16 bits, has a gibibyte raw)."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd: no two numbers come to the same, and neighbours lie far apart
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def unreadable(reason: str) -> OSError:
    """An error that says the same as text and as `strerror`, which is what most messages show."""
    error = OSError(reason)
    error.strerror = reason
    return error


def regular_size(path: str | Path) -> int:
    """Bytes of a regular file (links are followed), without opening it.

    Raises:
        OSError: It is not there, is something else than a file, or is too large to be a picture.
    """
    return _checked(os.stat(path)).st_size


def check_regular(path: str | Path) -> None:
    """Whether something is a regular file (links are followed), of any size.

    Raises:
        OSError: It is not there, or is something else.
    """
    _check_kind(os.stat(path))


def read_regular(path: str | Path) -> bytes:
    """The bytes of a regular file (links are followed); nothing else is ever opened.

    Raises:
        OSError: It cannot be read, is something else than a file, or is too large to be a picture.
    """
    _checked(os.stat(path))
    with open_regular(path) as file:
        size = _checked(os.fstat(file.fileno())).st_size  # what was opened may be something else by now
        data = file.read(size + 1) if size else b""
    if len(data) != size:
        raise unreadable(f"changed while it was read ({size:,} bytes, then others); read it again when it rests")
    return data


def open_regular(path: str | Path, buffering: int = -1) -> BinaryIO:
    """A regular file (links are followed) of any size, opened for reading; nothing else is ever opened.

    Raises:
        OSError: It cannot be opened, or is something else than a file.
    """
    check_regular(path)  # opening a pipe would wait, and opening a device can do something
    # what it is may change between the two: not even then may opening it wait
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file: BinaryIO = os.fdopen(os.open(path, flags), "rb", buffering)
    try:
        _check_kind(os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def _check_kind(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise unreadable(f"is {kind}; only regular files are read")


def _checked(found: os.stat_result) -> os.stat_result:
    _check_kind(found)
    if found.st_size > MAX_FILE_BYTES:
        raise unreadable(f"{found.st_size:,} bytes, more than a picture has (at most {MAX_FILE_BYTES:,} are read)")
    return found


def file_state(path: str | Path, *more: object) -> bytes | None:
    """16 bytes that change with a file's path, size or time of change (ns), and with `more`; None where it is gone."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    text = "\0".join(map(str, (os.fspath(path), found.st_size, found.st_mtime_ns, *more)))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=STATE_BYTES).digest()


def states_within(state: bytes, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """States of things that lie in one file, uint8 [len(numbers), 16].

    Args:
        state: Of the file, 16 bytes.
        numbers: What tells them apart in it: rows, or where they begin.
    """
    plain = numbers.astype("<u8")
    found = np.empty((len(numbers), STATE_BYTES), np.uint8)
    # whoever looks states up compares first halves: they must differ from one to the next
    found[:, :8] = (plain * _SPREAD ^ np.frombuffer(state[:8], "<u8"))[:, None].view(np.uint8)
    found[:, 8:] = plain[:, None].view(np.uint8)
    return found


def leads_out(name: str) -> bool:
    """Whether a path that a table gives is anything but one of a file inside the table's folder."""
    return not name or name.startswith("/") or "\0" in name or ".." in name.split("/")


class FolderImages:
    """Image files by row.

    Args:
        root: Their folder.
        names: Path of each inside it.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root, self.names = root, names if isinstance(names, Texts) else Texts(names)
        self._absolute = os.path.abspath(root)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        """Where a row's file lies.

        Raises:
            OSError: It would lie outside of the folder.
        """
        name = self.names[row]
        if leads_out(name):
            raise unreadable(f"the path {name!r} points outside of {self.root}; only files inside are read")
        return self.root / name

    def read(self, row: int) -> bytes:
        """The file's bytes; raises OSError also for what is no regular file."""
        return read_regular(self.path(row))

    def size(self, row: int) -> int:
        """The file's size, without reading it."""
        return regular_size(self.path(row))

    def known_digest(self, row: int) -> bytes | None:
        """None: files are listed, not read."""
        return None

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """Changes with the folder, the name, the size or the time of change.

        uint8 [len(rows), 16]; zeros for files that are not there.
        """
        empty = bytes(STATE_BYTES)
        found = b"".join(file_state(f"{self._absolute}/{name}") or empty for name in self.names.take(rows))
        return np.frombuffer(found, np.uint8).reshape(-1, STATE_BYTES)
