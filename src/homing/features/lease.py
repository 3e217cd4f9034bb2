"""Which shards a living process has in use, said in a file beside them, so that no other one evicts them."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from homing.outputs.artefact import host, is_alive, write_json

_NAME = re.compile(r"^lease-(?P<host>[\w.]+)-(?P<pid>\d+)-\d+\.json$")
_REFRESHED = 3600.0  # seconds between two signs of life
_OF_OTHER_HOSTS = 24 * 3600.0  # seconds without a sign of life, after which a lease of another host is over
_serial = itertools.count()


class Lease:
    """Held by this process on the shards of a store: on all of them until it is narrowed.

    Args:
        folder: Of the store; where it cannot be written to, nothing is held, and nothing need be.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"lease-{host()}-{os.getpid()}-{next(_serial)}.json"
        self._names: set[str] = set()
        self._refreshed = time.monotonic()
        self._write(None)

    def hold_all(self) -> None:
        """Hold all shards of the store again, those to come too."""
        self._write(None)

    def narrow_to(self, shards: Iterable[str]) -> None:
        """Hold these shards alone, and those that were named before."""
        self._names |= set(shards)
        self._write(sorted(self._names))

    def refresh(self) -> None:
        """A sign of life now and then, for hosts that cannot see this process."""
        if time.monotonic() - self._refreshed > _REFRESHED:
            self._refreshed = time.monotonic()
            with suppress(OSError):
                os.utime(self.path)

    def give_back(self) -> None:
        """Hold nothing any more."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self, names: list[str] | None) -> None:
        with suppress(OSError):
            write_json(self.path, {"started": start_of(os.getpid()), "shards": names})


def in_use(folder: Path, *, but: Path | None = None) -> set[str] | None:
    """Shards of a store that living processes hold; None for all of them. Leases of dead processes are removed.

    Args:
        folder: Of the store.
        but: A lease that does not count.
    """
    names: set[str] = set()
    for path in list(_leases(folder)):
        if path == but:
            continue
        try:
            held = json.loads(path.read_text(encoding="utf-8"))["shards"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if held is None:
            return None
        names |= set(held)
    return names


def start_of(pid: int) -> str | None:
    """When a process of this host began, as the kernel counts it: its number may be given to another one later."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None


def is_running(pid: int) -> bool:
    """Whether a process of this host is at work: neither gone nor a zombie that nobody has buried."""
    if not is_alive(pid):
        return False
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True


def _leases(folder: Path) -> Iterator[Path]:
    paths: list[Path] = []
    with suppress(OSError):
        paths = list(folder.iterdir())
    for path in paths:
        if (found := _NAME.match(path.name)) is None:
            continue
        if _is_over(path, found["host"], int(found["pid"])):
            with suppress(OSError):  # of another user; those that are at work are told all the same
                path.unlink(missing_ok=True)
        else:
            yield path


def _is_over(path: Path, of_host: str, pid: int) -> bool:
    with suppress(OSError, ValueError, KeyError, TypeError):
        if of_host != host():
            return time.time() - path.stat().st_mtime > _OF_OTHER_HOSTS
        return not is_running(pid) or json.loads(path.read_text(encoding="utf-8"))["started"] != start_of(pid)
    return False
