"""Real processes within a second: forked by a server that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["homing.flow", "homing.cli.app", "homing.recipe.reading", "datasets", "small_run"])


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


def together(function: Callable[..., Any], size: int, *arguments: Any, within: float = 120) -> None:
    """Call a function with the same arguments in each process of a group, and wait until all have ended well.

    They end without tearing the interpreter down, where threads of a group may abort.
    """
    group = [start(_in_group, function, *arguments, **own) for own in group_of(size)]
    for process in group:
        process.join(within)
    assert [process.exitcode for process in group] == [0] * size


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
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
