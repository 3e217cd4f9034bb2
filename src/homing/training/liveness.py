"""Several processes watch one another: where one ends, is stopped or is cut off, the others end too, and say why.

A collective that waits for a process that is gone would wait for as long as the group allows, which is days: the main
process may learn rates for hours while the others wait. So each process says every few seconds that it is there, in
the key-value store by which the processes found one another, and looks whether the others do.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from accelerate import Accelerator
from torch.distributed.distributed_c10d import PrefixStore

from homing.errors import HomingError, LostProcess
from homing.launch import end_at_once
from homing.outputs.artefact import host, is_alive
from homing.terminal import in_lines

BEAT = 2.0
"""Seconds between two signs of life."""
SILENCE = 30.0
"""Seconds without one after which a process counts as lost."""
GRACE = 5.0
"""Seconds that a process has to end by itself once it knows that another one is lost."""
_TIMEOUT = timedelta(seconds=10)  # of a word with the store
_OF_LOST_CONNECTIONS = ("gloo", "nccl", "connection", "broken pipe", "socket", "timed out")
_number = itertools.count()


@dataclass(frozen=True)
class Verdict:
    """Which process is lost, and how the others end."""

    rank: int
    message: str
    exit_code: int = LostProcess.exit_code


@contextmanager
def watching(accelerator: Accelerator) -> Iterator[None]:
    """While this context is open, no process outlives another one by more than a minute.

    All processes open and leave it together. In a single process it does nothing.

    Raises:
        LostProcess: Another process is gone. One that hangs in a collective cannot raise: it says so and ends.
    """
    if accelerator.num_processes == 1 or "MASTER_ADDR" not in os.environ:
        yield
        return
    watch = Watch(accelerator.process_index, accelerator.num_processes, f"homing/{_attempt()}/{next(_number)}")
    watch.start()
    try:
        yield
        accelerator.wait_for_everyone()  # nobody leaves while others are at work
    except BaseException as error:
        verdict = watch.verdict_within(SILENCE + GRACE) if _is_lost_connection(error) else None
        watch.leave(error, verdict)
        if verdict is None:
            raise
        atexit.register(end_at_once, verdict.exit_code)
        raise watch.error(verdict) from None
    else:
        watch.leave(None, None)


class Watch:
    """The thread of one process that gives and looks for signs of life.

    Args:
        rank: Of this process.
        world: Number of processes.
        prefix: Of the keys in the store.
    """

    def __init__(self, rank: int, world: int, prefix: str) -> None:
        self.rank, self.world = rank, world
        self.others = [other for other in range(world) if other != rank]
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        client = cast(Any, dist).TCPStore(*place, is_master=False, wait_for_workers=False, timeout=_TIMEOUT)
        self.store = PrefixStore(prefix, client)
        self.verdict: Verdict | None = None
        self._store_answers, self._given_up = True, False
        self._known, self._left = threading.Event(), threading.Event()
        self._beats: dict[int, tuple[str, float]] = {}
        self._who: dict[int, tuple[str, int]] = {}
        self._asked: float | None = None  # when the round that waits for the store began
        self._thread = threading.Thread(target=self._run, name="homing-liveness", daemon=True)
        self._keeper = threading.Thread(target=self._time_the_store, name="homing-liveness-store", daemon=True)

    def start(self) -> None:
        """Say who this is, and begin to watch."""
        self.store.set(f"who/{self.rank}", json.dumps([host(), os.getpid()]))
        self._thread.start()
        self._keeper.start()

    def verdict_within(self, seconds: float) -> Verdict | None:
        """Which process is lost, as soon as that is known."""
        self._known.wait(seconds)
        return self.verdict

    def error(self, verdict: Verdict) -> LostProcess:
        """What this process ends with; one of those that are left tells it."""
        error = LostProcess(verdict.message)
        error.exit_code = verdict.exit_code
        error.shared = not self._tells(verdict)
        return error

    def leave(self, error: BaseException | None, verdict: Verdict | None) -> None:
        """End the watch; the others hear why."""
        self._left.set()
        if error is not None:
            self._say_goodbye(verdict or _own_verdict(self.rank, self.world, error))
        if verdict is not None:
            self._wake(verdict.rank)
        self._thread.join(1.0)  # it may wait for a store that does not answer; it ends with the process then

    # ---- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        last, unreachable = time.monotonic(), None
        for number in itertools.count():
            now = time.monotonic()
            if now - last > SILENCE / 2:  # this process itself was stopped: it cannot tell who was silent meanwhile
                self._beats.clear()
                unreachable, self._given_up = None, True
            last = now
            try:
                self._asked = now
                self.store.set(f"beat/{self.rank}", str(number))
                verdict, unreachable, self._store_answers = self._look(now), None, True
            except (RuntimeError, ValueError):
                unreachable, self._store_answers = unreachable or now, False
                verdict = self._of_store(now - unreachable)
            self._asked = None
            if verdict is not None:
                self._conclude(verdict)
                return
            if self._left.wait(BEAT):
                return

    def _conclude(self, verdict: Verdict) -> None:
        """Let this process end by itself, or end it."""
        if self._known.is_set():
            return
        self.verdict = verdict
        self._known.set()
        if not self._left.wait(GRACE):
            self._end(verdict)

    def _time_the_store(self) -> None:
        """A store whose keeper was stopped takes what it is sent and never answers: its client waits for ever."""
        last = time.monotonic()
        while not (self._left.wait(BEAT) or self._known.is_set()):
            now, asked = time.monotonic(), self._asked
            if now - last > SILENCE / 2 and asked is not None:  # this process itself was stopped
                self._asked = asked = now
            last = now
            if asked is not None and now - asked > SILENCE and (verdict := self._of_store(now - asked)) is not None:
                self._store_answers = False
                self._conclude(verdict)

    def _look(self, now: float) -> Verdict | None:
        for other in self.others:
            if goodbye := self._read(f"bye/{other}"):
                rank, message, code = json.loads(goodbye)
                self._given_up |= rank == self.rank  # the others have said so, and ended
                return Verdict(other if self._given_up else rank, message, code)
        for other in self.others:
            beat, (before, since) = self._read(f"beat/{other}"), self._beats.get(other, ("", now))
            self._beats[other] = (beat, now) if beat != before else (before, since)
            who = self._who.get(other) or self._read(f"who/{other}")
            if isinstance(who, str) and who:
                name, pid = json.loads(who)
                self._who[other] = name, pid
            of = f"process {other} of {self.world}"
            if self._is_gone(other) and not self._read(f"bye/{other}"):
                return Verdict(other, f"{of} was killed or ended without a word; go on with --resume")
            if now - self._beats[other][1] > SILENCE:
                return Verdict(
                    other,
                    f"{of} was not heard of for {SILENCE:.0f} s (stopped, hung, or cut off); go on with --resume",
                )
        return None

    def _of_store(self, seconds: float) -> Verdict | None:
        """The store does not answer: its keeper is the first process, or the launcher of all."""
        if (self.rank and self._is_gone(0)) or seconds > SILENCE:
            return Verdict(
                0, f"process 0 of {self.world}, or what launched them all, does not answer; go on with --resume"
            )
        return None

    def _read(self, key: str) -> str:
        return self.store.get(key).decode() if self.store.check([key]) else ""

    def _is_gone(self, other: int) -> bool:
        """Whether a process of this host has ended; of others' nothing is known."""
        name, pid = self._who.get(other, ("", 0))
        if name != host():
            return False
        with suppress(OSError, IndexError):
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        return not is_alive(pid)

    def _wake(self, other: int) -> None:
        """A process of this host that was stopped goes on, to hear that the others have ended."""
        name, pid = self._who.get(other, ("", 0))
        if name == host() and not self._is_gone(other):
            with suppress(OSError):
                os.kill(pid, signal.SIGCONT)

    def _say_goodbye(self, verdict: Verdict) -> None:
        with suppress(RuntimeError, ValueError):
            if self._store_answers:
                self.store.set(f"bye/{self.rank}", json.dumps([verdict.rank, verdict.message, verdict.exit_code]))

    def _tells(self, verdict: Verdict) -> bool:
        """Whether this is the process that says it: the first of those that are left, unless the others gave it up."""
        return not self._given_up and self.rank == min(r for r in range(self.world) if r != verdict.rank)

    def _end(self, verdict: Verdict) -> None:
        """The main thread hangs in a collective, where nothing else can reach it."""
        self._say_goodbye(verdict)
        self._wake(verdict.rank)
        if self._tells(verdict):
            who = f"process {self.rank}: " if self.rank else ""
            print(in_lines(f"homing: {who}{verdict.message}"), file=sys.stderr, flush=True)
        end_at_once(verdict.exit_code)


def _own_verdict(rank: int, world: int, error: BaseException) -> Verdict:
    """What the others hear of an error of this process."""
    said = (str(error).splitlines() or [""])[0]
    if isinstance(error, HomingError):
        return Verdict(rank, f"process {rank} of {world} ended: {said}", error.exit_code)
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else LostProcess.exit_code
    return Verdict(rank, f"process {rank} of {world} ended: {type(error).__name__}: {said}; go on with --resume", code)


def _is_lost_connection(error: BaseException) -> bool:
    """Whether an error is what a collective raises where another process is gone."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _OF_LOST_CONNECTIONS)
    )


def _attempt() -> str:
    """Which launch this is: launchers start all processes again, with the store that was."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
