"""What lies on disk is there whole or not at all: the one writer of files and folders, marks, and what a kill left.

An artefact is written under a name of its own beside its place, flushed, and renamed. That name carries host and
process, so that the next one who writes in the same folder removes what a killed process left, and nothing else.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

MARK = "done.json"
"""Name of the mark that a folder is whole, where it has no file of its own that is written last."""
_OF_OTHER_HOSTS = 24 * 3600  # seconds without a change, after which what another host wrote is taken for left behind
_MANY_FILES = 1_000  # above it one flush of everything is quicker than one for each file


def _host() -> str:
    """Name of this host, with that of its processes' numbers: containers may share the one but not the other."""
    name = re.sub(r"[^\w.]", "_", socket.gethostname())[:40] or "host"
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]  # machines may share a name
        return f"{name}.{re.sub(r'[^0-9a-f]', '', boot)}.{re.sub(r'[^0-9]', '', os.readlink('/proc/self/ns/pid'))}"
    return name


_HOST = _host()
_UNFINISHED = re.compile(r"^\..*\.homing-(?P<host>[\w.]+)-(?P<pid>\d+)-\d+\.tmp$", re.DOTALL)
_serial = itertools.count()
_ours: set[str] = set()  # names of what this process is at work on


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to under another name; flushed and renamed where the block ends well, else removed."""
    with under_other_name(path) as unfinished:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _flush_folder(path.parent)


@contextmanager
def folder_whole(path: Path, *, into_existing: bool = False) -> Iterator[Path]:
    """A folder to write to under another name, which takes its place where the block ends well; else it is removed.

    Args:
        path: Of the folder; it may be there where it is empty.
        into_existing: Where a folder is there already, replace its files one by one; those that were not written
            anew stay, whosever they are.

    Yields:
        The folder to write to, empty.

    Raises:
        OSError: Something else lies at `path`.
    """
    with under_other_name(path) as unfinished:
        unfinished.mkdir(parents=True)
        yield unfinished
        _flush_tree(unfinished)
        if into_existing and path.is_dir() and any(path.iterdir()):
            _move_over(unfinished, path)
        else:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()  # fails where something came to lie in it meanwhile
            os.rename(unfinished, path)
        _flush_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write under another name, flush, rename."""
    with open_whole(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """JSON by the standard: numbers that are not finite become null."""
    write_whole(path, (json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n").encode())


def json_line(value: Any) -> str:
    """The same on one line, in ASCII: any terminal or pipe can take it."""
    return json.dumps(_finite(value))


# ---- what it was made from, and whether it is whole ----------------------------------------------------------------


def digest_of(*texts: str) -> str:
    """sha256 over texts and their bounds, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def mark_done(folder: Path, made_from: Mapping[str, str], name: str = MARK) -> None:
    """Write the mark of a folder, after everything else in it.

    Args:
        folder: Whose files are all there.
        made_from: Whatever its content follows from: digests, names, versions.
        name: Of the mark.
    """
    write_json(folder / name, {"made_from": dict(made_from)})


def made_from(folder: Path, name: str = MARK) -> dict[str, str] | None:
    """What a folder was made from; None where it has no mark that can be read: it is not whole, then."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))["made_from"]
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# ---- what a kill left ----------------------------------------------------------------------------------------------


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what processes that are gone left unfinished in a folder (not in those below); returns what that was.

    What another host wrote is removed after a day without a change. Folders that may not be read or written to are
    left as they are.
    """
    removed = []
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            path = Path(entry.path)
            if is_leftover(path):
                _remove(path)
                removed.append(path)
    return removed


def is_unfinished(path: Path) -> bool:
    """Whether a name is that of something being written, or left by a kill."""
    return _UNFINISHED.match(path.name) is not None


def is_leftover(path: Path) -> bool:
    """Whether a path is unfinished and nobody is at work on it any more."""
    found = _UNFINISHED.match(path.name)
    if found is None or path.name in _ours:
        return False
    if found["host"] != _HOST:
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > _OF_OTHER_HOSTS
        return False
    return not is_alive(int(found["pid"])) or int(found["pid"]) == os.getpid()


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def host() -> str:
    """This host, as the names of unfinished files have it."""
    return _HOST


@contextmanager
def under_other_name(path: Path) -> Iterator[Path]:
    """A name beside `path` that is free; what lies there in the end is removed."""
    remove_leftovers(path.parent)
    kept = path.name.encode()[:100].decode(errors="ignore")  # names end at 255 bytes
    unfinished = path.with_name(f".{kept}.homing-{_HOST}-{os.getpid()}-{next(_serial)}.tmp")
    _ours.add(unfinished.name)
    try:
        yield unfinished
    except OSError as error:
        if error.filename in (None, str(unfinished)):  # a full disk is not told with a name
            error.filename = str(path)
        raise
    except SafetensorError as error:  # its writer tells of the system's errors in words alone
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    finally:
        _remove(unfinished)
        _ours.discard(unfinished.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _move_over(unfinished: Path, folder: Path) -> None:
    """Each file to its place below `folder`; parents first, so that files find their folders."""
    for place, folders, files in os.walk(unfinished):
        inside = folder / Path(place).relative_to(unfinished)
        for name in folders:
            (inside / name).mkdir(exist_ok=True)
        for name in files:
            os.replace(Path(place) / name, inside / name)
        _flush_folder(inside)


def _flush_tree(folder: Path) -> None:
    """Everything below a folder reaches the disk before it is renamed; links have nothing to flush."""
    count = 0
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place) / name
            count += not path.is_symlink()
            if count > _MANY_FILES:
                os.sync()
                return
            if not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        _flush_folder(Path(place))


def _flush_folder(folder: Path) -> None:
    with suppress(OSError):  # file systems that cannot flush a folder keep the order of renames themselves
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
