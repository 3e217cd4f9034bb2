"""One process at a time in a run folder: a second one is refused and learns who is at work there."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from homing.errors import RecipeError
from homing.outputs.artefact import host, is_alive
from homing.outputs.ownership import LOCK

try:
    import fcntl
except ImportError:  # not a Unix: the file itself is the lock
    fcntl = None  # type: ignore[assignment]

_SIGNING = 0.2  # seconds that a process has between taking a lock and saying so
_REFUSED = (errno.EWOULDBLOCK, errno.EACCES)
_held: dict[Path, int] = {}  # of this process: lock file → open file


class FolderLock:
    """The right to write to run folders, until `release` or the end of the process, however it ends.

    The operating system's lock where the file system has one; else the file alone, which counts as left behind where
    its process is gone from this host.
    """

    def __init__(self) -> None:
        self._taken: list[Path] = []

    def take(self, folder: Path, *, makes: bool = False) -> None:
        """Take that of a folder; nothing happens where this process has it already, or there is no such folder yet.

        Args:
            folder: To write to.
            makes: Whether it is made where there is none.

        Raises:
            RecipeError: Another process has it, and says which; or the folder cannot be written to.
        """
        path = folder.absolute() / LOCK
        if makes:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(folder, error) from error
        if path not in _held and folder.is_dir():
            _held[path] = _acquired(folder, path)
            self._taken.append(path)

    def release(self) -> None:
        """Give back what was taken here."""
        for path in self._taken:
            path.unlink(missing_ok=True)  # while it is still held: nobody takes what is about to go
            os.close(_held.pop(path))
        self._taken.clear()


@contextmanager
def folder_lock() -> Iterator[FolderLock]:
    """Locks that are given back at the end of the block."""
    lock = FolderLock()
    try:
        yield lock
    finally:
        lock.release()


def _acquired(folder: Path, path: Path) -> int:
    """An open file with the lock on it, and in it who has it."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unwritable(folder, error) from error
        if _is_ours(handle, path):
            try:
                _sign(handle)
            except OSError as error:  # a full disk, say; the file goes before its lock does
                path.unlink(missing_ok=True)
                os.close(handle)
                raise _unwritable(folder, error) from error
            with suppress(FileNotFoundError):  # another process may have taken it for that of one that is gone
                if os.fstat(handle).st_ino == path.stat().st_ino:
                    return handle
        elif _stays_gone(path):
            path.unlink(missing_ok=True)  # what it started may hold the lock of this file on
        else:
            os.close(handle)
            raise RecipeError(_refusal(folder, path))
        os.close(handle)  # its holder removed it meanwhile: once more


def _unwritable(folder: Path, error: OSError) -> RecipeError:
    return RecipeError(f"{folder}: cannot be written to ({error.strerror}); give another --output")


def _sign(handle: int) -> None:
    """Say in a lock's file who has it."""
    owner = {"host": host(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)


def _stays_gone(path: Path) -> bool:
    """Whether the owner of a lock is gone, and it is not that of one that has it by now and is about to say so."""
    if not _is_gone(_owner(path)):
        return False
    time.sleep(_SIGNING)
    return _is_gone(_owner(path))


def _is_ours(handle: int, path: Path) -> bool:
    """Whether the lock on an open file is ours now."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _REFUSED:
                return False
        else:
            return True
    owner = _owner(path)  # a file system without locks
    return not owner or _is_gone(owner)


def _owner(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"pid", "host", "since"} <= found.keys():
            return found
    return {}


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock file ran on this host and does not any more."""
    return owner.get("host") == host() and isinstance(owner["pid"], int) and not is_alive(owner["pid"])


def _refusal(folder: Path, path: Path) -> str:
    owner, who = _owner(path), "another process"
    if owner:
        name = str(owner["host"]).rpartition(".")[0] or owner["host"]
        who = f"process {owner['pid']} on {name} (since {owner['since']})"
    return f"{folder}: {who} is at work in it; wait for its end or stop it, or give another --output"
