"""How many threads this process may use, and how they wait: set before torch is imported, by the program alone.

OpenMP takes the machine's cores, not those of the container or the job, and its threads spin while they wait. Beside
other busy processes a training step was 24 times slower for it (docs/scale.md has the figures).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from homing.launch import processes_here

_THREADS = re.compile(
    r"\s*[1-9][0-9]{0,5}\s*(,\s*[1-9][0-9]{0,5}\s*)*"
)  # one number a level of nesting, as OpenMP has it
_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def settle_threads(environment: MutableMapping[str, str]) -> None:
    """Set what OpenMP reads when torch is loaded; what the user has set stays, where OpenMP can read it.

    Several processes of one launcher on this machine share its cores.

    Args:
        environment: `os.environ`.
    """
    # a launcher's own OMP_NUM_THREADS=1 (torchrun sets it, and says so) is as good as a user's
    if not _THREADS.fullmatch(environment.get("OMP_NUM_THREADS", "")):
        environment["OMP_NUM_THREADS"] = str(max(1, usable_cores() // processes_here(environment)))
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # where a process of the run is lost, one sentence of ours says so, and not a page of torch's C++ frames
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _quota() -> float | None:
    """Cores' worth of time that the control group grants; None: no limit, or none that can be read."""
    try:
        if _CGROUP_V2.exists():
            quota, period = _CGROUP_V2.read_text().split()
        else:
            quota, period = (path.read_text().strip() for path in _CGROUP_V1)
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
