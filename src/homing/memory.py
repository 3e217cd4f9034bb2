"""How much memory this process held at most, how much there is, and what it can do without."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def peak_rss_mb() -> float:
    """Peak resident memory of this process alone, MB.

    Linux hands the high-water mark of getrusage on to a process from the one that started it; /proc does not.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return round(int(found[1]) * 1024 / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def trim_heap() -> None:
    """Give memory that was freed back to the system, between two stages; nothing where the C library is not glibc.

    Batches leave holes among what is kept, and arrays of the next stage that fit in none of them would come on top.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def total_memory(device: torch.device) -> int | None:
    """Memory of a device, bytes: what the machine has, or less where this process's control group grants less.

    None where it cannot be known.
    """
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    found = []
    with suppress(OSError, TypeError, ValueError):
        found.append(1024 * int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]))  # type: ignore[index]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # none is set, or it reads "max"
            found.append(int(Path(path).read_text()))
    return min(found, default=None) if device.type == "cpu" else None
