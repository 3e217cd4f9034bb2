"""Which of several processes this is, as a launcher (torchrun, accelerate launch) says in the environment.

What an earlier launcher left there is no group: a process that believed it would be silent, or wait for others that
never come.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import NoReturn

_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_MOST = 2**20  # processes


def group_of(environment: Mapping[str, str]) -> tuple[int, int]:
    """(number of this process, number of processes); (0, 1) where not all that a group needs is said.

    Args:
        environment: `os.environ`.
    """
    rank, world, local = (_number(environment.get(name)) for name in _GROUP[:3])
    port = _number(environment.get("MASTER_PORT"))
    if rank is None or world is None or local is None or port is None or not environment.get("MASTER_ADDR"):
        return 0, 1
    return (rank, world) if rank < world else (0, 1)


def is_main() -> bool:
    """Whether this is the process that speaks for all."""
    return group_of(os.environ)[0] == 0


def processes_here(environment: Mapping[str, str]) -> int:
    """Processes of this group on this machine, which share its cores."""
    return max(1, _number(environment.get("LOCAL_WORLD_SIZE")) or 1) if group_of(environment)[1] > 1 else 1


def settle_group(environment: MutableMapping[str, str]) -> str | None:
    """Remove from the environment what says nothing of a group, or libraries would make half a group of it.

    Args:
        environment: `os.environ`.

    Returns:
        A warning, where what is removed spoke of several processes.
    """
    if group_of(environment)[1] > 1:
        return None
    left = {name: environment.pop(name) for name in (*_GROUP, "LOCAL_WORLD_SIZE") if name in environment}
    if left.get("WORLD_SIZE", "1") == "1" and left.get("RANK", "0") == "0":
        return None
    said = " ".join(f"{name}={value!r}" for name, value in left.items())
    return f"the environment holds {said}, which is no whole group ({', '.join(_GROUP)}): this process runs alone"


def leave(exit_code: int) -> NoReturn:
    """End the program. A process of a group does what is left to do at its end and goes at once.

    Raises:
        SystemExit: This process is in no group.
    """
    if group_of(os.environ)[1] == 1:
        sys.exit(exit_code)
    atexit._run_exitfuncs()
    end_at_once(exit_code)


def end_at_once(exit_code: int) -> NoReturn:
    """Threads of a group may hang or abort (SIGABRT) while the interpreter is torn down: it is not."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody is left to be told
            stream.flush()
    os._exit(exit_code)


def _number(text: str | None) -> int | None:
    """A whole number from 0; None where there is none."""
    found = int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
    return found if found is None or found < _MOST else None
