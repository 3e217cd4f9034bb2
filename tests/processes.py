"""Real processes within a second: forked by a server that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LONG_ENOUGH = 200
"""Seconds for what takes a few on a quiet machine: who waits longer waits for ever."""

_forkserver = multiprocessing.get_context("forkserver")
_VERBS = ["compare", "outputs.corpus", "outputs.export", "predict", "scanning", "score", "validate"]
_OURS = ["cli.app", "flow", "outputs.scorer_folder", "recipe.reading", *_VERBS]
_forkserver.set_forkserver_preload([*(f"homing.{name}" for name in _OURS), "datasets", "small_run", "warm"])


def start(function: Callable[..., Any], *arguments: Any, stderr: Path | None = None, **environment: str) -> BaseProcess:
    """Call a function in a process of its own; its stderr goes to a file."""
    process = _forkserver.Process(target=_call, args=(function, arguments, stderr, environment))
    process.start()
    return process


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], stderr: Path | None, environment: dict) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite under nohup would hand on that it is ignored
    if stderr is not None:
        sys.stderr = stderr.open("a", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
    function(*arguments)


def homing(*arguments: object) -> None:
    """The command line, in a process of its own."""
    from homing.cli.app import main

    sys.argv = ["homing", *map(str, arguments)]
    main()


def called(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a shell calls it, but for the start: its exit code, and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(_called, cwd, out, arguments, stderr=err, **environment)
        assert ended(process, LONG_ENOUGH), "waits for ever"
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def _called(cwd: Path, out: Path, arguments: tuple[object, ...]) -> None:
    os.chdir(cwd)
    with out.open("wb") as file:
        os.dup2(file.fileno(), 1)
    homing(*arguments)


def start_group(
    function: Callable[..., Any], size: int, *arguments: Any, stderr: Path | None = None
) -> list[BaseProcess]:
    """Call a function with the same arguments in each process of a group, which write to `<stderr>-<rank>`."""
    logs = [stderr and stderr.with_name(f"{stderr.name}-{rank}") for rank in range(size)]
    return [start(function, *arguments, stderr=log, **own) for log, own in zip(logs, group_of(size), strict=True)]


def end_group(group: list[BaseProcess], code: int = 0) -> None:
    """Wait until all processes have ended with a code."""
    hang = [number for number, process in enumerate(group) if not ended(process, LONG_ENOUGH)]
    for number in hang:
        group[number].kill()
    assert hang == [], "waits for ever"
    assert [process.exitcode for process in group] == [code] * len(group)


def together(function: Callable[..., Any], size: int, *arguments: Any) -> None:
    """Call a function with the same arguments in each process of a gloo group, and wait until all have ended well.

    They end without tearing the interpreter down, where threads of a group may abort.
    """
    end_group(start_group(_in_group, size, function, *arguments))


def _in_group(function: Callable[..., Any], *arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    try:
        function(*arguments)
    finally:
        torch.distributed.destroy_process_group()


def ended(process: BaseProcess, seconds: float) -> bool:
    """Whether a process ends within some seconds."""
    return bool(wait([process.sentinel], timeout=seconds))


def group_of(size: int) -> list[dict[str, str]]:
    """The environment of each process of a group that trains together."""
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def _free_port() -> int:
    """One below those that the system hands out by itself: no connection takes it before the group does."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with closing(socket.socket()) as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
