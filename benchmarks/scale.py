"""What large pools cost: seconds and peak memory of each stage, each in a process of its own.

    python benchmarks/scale.py --cache DIR [--only STAGE[:ROWS]] [--json FILE]

A stage is a file of `scale_stages/` with `CASES`, a list of keyword arguments (`rows`, `classes` and `width` among
them), and `measure(cache, **case) -> dict`, what it found beside seconds and memory; what it prepares before it calls
`stopwatch()` is not counted. `--only rates:1000000` takes the cases of one stage and one number of rows.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import resource
import subprocess
import sys
import time
from pathlib import Path

import scale_stages


class Stopwatch:
    """Seconds since it was made, and the most memory that this process held since then."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: preparing is not what is measured
        self._started = time.monotonic()

    def read(self) -> dict[str, float]:
        """`seconds` and `peak_rss_mb`, mapped pages of files included."""
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        return {"seconds": round(time.monotonic() - self._started, 1), "peak_rss_mb": round(peak)}


def stopwatch() -> Stopwatch:
    """Start measuring."""
    return Stopwatch()


def measured(stage: str, case: dict, cache: Path) -> dict:
    """One row of the table, from a process of its own."""
    command = [sys.executable, __file__, "--cache", str(cache), "--inside", json.dumps({"stage": stage, "case": case})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"stage": stage, **case, "failed": done.returncode}
    return json.loads(done.stdout.splitlines()[-1])


def inside(stage: str, case: dict, cache: Path) -> dict:
    """The same, in this process."""
    found = importlib.import_module(f"scale_stages.{stage}").measure(cache, **case)
    row = {"rows": case["rows"], "classes": case.get("classes"), "width": case.get("width"), "stage": stage}
    row |= case | found
    if "seconds" in row:
        row["rows_per_second"] = round(case["rows"] / max(row["seconds"], 1e-3))
    row["peak_rss_mb"] = row.get("peak_rss_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for made-up pools; they may be large")
    parser.add_argument("--only", default="", help="STAGE[:ROWS]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(inside(**json.loads(arguments.inside), cache=arguments.cache)))
        return
    stage, _, rows = arguments.only.partition(":")
    names = [module.name for module in pkgutil.iter_modules(scale_stages.__path__)]
    if stage and stage not in names:
        parser.error(f"no stage {stage!r}; there are {', '.join(names)}")
    table = []
    for name in [stage] if stage else names:
        for case in importlib.import_module(f"scale_stages.{name}").CASES:
            if rows and int(rows) != case["rows"]:
                continue
            table.append(measured(name, case, arguments.cache))
            print(json.dumps(table[-1]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps({"rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    sys.modules["scale"] = sys.modules["__main__"]  # stages import the stopwatch of this very program
    main()
