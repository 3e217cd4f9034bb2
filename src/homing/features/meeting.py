"""Processes of one scan that meet in a folder: files are waited for as long as their writers give signs of life.

A collective has a limit of minutes, and a scan may take a day longer in one process than in another. Files have none,
and they show at once whether all processes see the same folder.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from homing.errors import DataError, HomingError, Interrupted, LostProcess
from homing.features.lease import is_running
from homing.outputs.artefact import host, write_whole

_SIGN_OF_LIFE = 2.0  # seconds between two
_SILENCE = 45.0  # seconds without one, after which a process is taken for dead
_NOT_SHARED = 20.0  # seconds that a file may take to show on another host
_POLL = 0.02


class Meeting:
    """One process's view of a meeting.

    Args:
        folder: Of this meeting alone.
        rank: Of this process.
        num: Of processes.
    """

    def __init__(self, folder: Path, rank: int, num: int) -> None:
        self.folder, self.rank, self.num = folder, rank, num
        self._seen: dict[int, tuple[int, float]] = {}

    def path(self, what: str, rank: int = 0) -> Path:
        """Where a process leaves something."""
        return self.folder / f"{what}-{rank}"

    def say(self, what: str, rank: int, text: str) -> None:
        """Leave a text."""
        write_whole(self.path(what, rank), text.encode())

    def wait_for(self, what: str, rank: int = 0) -> Path:
        """What a process leaves, when it is there.

        Raises:
            DataError: A process failed.
            LostProcess: One is gone.
        """
        pause = _POLL
        while not self.path(what, rank).exists():
            self._check_others()
            time.sleep(pause)
            pause = min(1.0, pause * 1.2)
        return self.path(what, rank)

    def _check_others(self) -> None:
        for rank in range(self.num):
            if rank == self.rank:
                continue
            with suppress(FileNotFoundError):
                kind, _, text = self.path("failed", rank).read_text().partition("\n")
                _raise_shared(f"process {rank}: {text}", kind)
            if not self.path("left", rank).exists() and self._is_gone(rank):
                text = f"process {rank} of {self.num} ended or hangs; start again, what is scanned stays"
                _raise_shared(text, LostProcess.__name__)

    def _is_gone(self, rank: int) -> bool:
        """Whether a process of this host is dead, or one of any host gave no sign of life for too long."""
        stamp, of_host, pid = -1, "", "0"
        with suppress(FileNotFoundError, ValueError):
            sign = self.path("alive", rank)
            stamp = sign.stat().st_mtime_ns
            of_host, pid = sign.read_text().split()
        if of_host == host() and not is_running(int(pid)):
            return True
        if self._seen.get(rank, (None, 0.0))[0] != stamp:
            self._seen[rank] = stamp, time.monotonic()
        return time.monotonic() - self._seen[rank][1] > _SILENCE


@contextmanager
def meet(accelerator: Accelerator, folder: Path) -> Iterator[Meeting]:
    """A meeting of all processes, in a folder that all of them must see.

    Raises:
        DataError: Some process does not see the folder.
    """
    rank, num = accelerator.process_index, accelerator.num_processes
    if num == 1:
        yield Meeting(folder, 0, 1)
        return
    shared = [f"meeting-{uuid.uuid4().hex}", host()]
    if rank == 0:
        (folder / shared[0]).mkdir()
    broadcast_object_list(shared)
    place = folder / shared[0]
    meeting, ended = Meeting(place, rank, num), threading.Event()
    _check_shared(place, rank, shared[1])
    alive = threading.Thread(target=_give_signs, args=(meeting.path("alive", rank), ended), daemon=True)
    alive.start()
    try:
        yield meeting
        meeting.say("left", rank, "")
        if rank == 0:
            for other in range(num):
                meeting.wait_for("left", other)
    except BaseException as error:
        with suppress(OSError):
            text = str(error) if isinstance(error, HomingError) else f"{type(error).__name__}: {error}"
            meeting.say("failed", rank, "\n".join([type(error).__name__, *text.splitlines()[:1]]))
        raise
    else:
        if rank == 0:
            shutil.rmtree(place, ignore_errors=True)
    finally:
        ended.set()
        alive.join()


def _check_shared(place: Path, rank: int, main_host: str) -> None:
    """Every process looks for the folder that the main one made."""
    began, limit = time.monotonic(), 0.0 if main_host == host() else _NOT_SHARED
    while not place.is_dir() and time.monotonic() - began < limit:
        time.sleep(_POLL)
    everyone: list[bool] = gather_object([place.is_dir()])
    blind = [str(number) for number, seen in enumerate(everyone) if not seen]
    if blind:
        if rank == 0:
            with suppress(OSError):
                shutil.rmtree(place, ignore_errors=True)
        _raise_shared(
            f"{place.parent}: process {', '.join(blind)} of {len(everyone)} does not see what process 0 writes there;"
            " several nodes need one folder that all of them share: set output.cache to one"
        )


def _give_signs(path: Path, ended: threading.Event) -> None:
    while True:
        with suppress(OSError):
            path.write_text(f"{host()} {os.getpid()}\n")
        if ended.wait(_SIGN_OF_LIFE):
            return


def _raise_shared(text: str, kind: str = "") -> None:
    kinds: dict[str, type[HomingError]] = {each.__name__: each for each in (Interrupted, LostProcess)}
    error = kinds.get(kind, DataError)(text)
    error.shared = True
    raise error
