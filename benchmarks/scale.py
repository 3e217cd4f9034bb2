"""What large pools cost: seconds and peak memory of each stage, each in a process of its own.

    python benchmarks/scale.py [--cache DIR] [--only STAGE[:ROWS]] [--json FILE]
    python benchmarks/scale.py --only rates --rows 600 --classes 10 --width 32      # a case of one's own

A file of `scale_stages/` holds one stage or a few: `CASES`, a list of keyword arguments (`rows`, `classes` and `width`
among them, `stage` where it is not the file's name), and `measure(cache, **case) -> dict`, what it found beside seconds
and memory. What it prepares before it calls `stopwatch()` is not counted. `load_average` is the machine's, the stage
itself in it: where it is well above the number of cores, ratios within a row say more than its seconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scale_stages

from homing.memory import peak_rss_mb
from homing.threads import settle_threads, usable_cores

Row = dict[str, Any]
SHOWN = ("stage", "rows", "classes", "width", "seconds", "peak_rss_mb", "rows_per_second")


def cpu_seconds() -> float:
    """Of the processors, for this process, its threads and its ended children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class Stopwatch:
    """Seconds since it was made, on the clock and of the processors, and the most memory this process held since."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: preparing is not what is measured
        self._started, self._spent = time.monotonic(), cpu_seconds()

    def read(self) -> dict[str, float]:
        """`seconds`, `cpu_seconds` and `peak_rss_mb`, mapped pages of files included."""
        seconds, spent = time.monotonic() - self._started, cpu_seconds() - self._spent
        return {"seconds": round(seconds, 2), "cpu_seconds": round(spent, 2), "peak_rss_mb": round(peak_rss_mb())}


def stopwatch() -> Stopwatch:
    """Start measuring."""
    return Stopwatch()


def starting(function: Callable[..., Any], folder: Path, *arguments: Any) -> subprocess.Popen[str]:
    """Call a function of a stage in a process of its own, beside this one; arguments are plain values."""
    module = "scale" if function.__module__ == "__main__" else function.__module__
    call = [module, function.__name__, str(folder), *arguments]
    command = [sys.executable, __file__, "--call", json.dumps(call)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Any:
    """What the function returned."""
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)  # it has said why
    return json.loads(told.splitlines()[-1])


def apart(function: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Start it, and wait for what it returns."""
    return ended(starting(function, folder, *arguments))


def called(module: str, function: str, folder: str, *arguments: Any) -> Any:
    """The other side of `starting`."""
    return getattr(importlib.import_module(module), function)(Path(folder), *arguments)


def measured(file: str, case: Row, cache: Path) -> Row:
    """One row of the table, from a process of its own."""
    before = os.getloadavg()[0]
    process = starting(inside, cache, file, case)
    told, _ = process.communicate()
    if process.returncode:
        return {"stage": file, **case, "failed": process.returncode}
    return json.loads(told.splitlines()[-1]) | {"load_average": round((before + os.getloadavg()[0]) / 2, 1)}


def inside(cache: Path, file: str, case: Row) -> Row:
    """The same, in this process."""
    found = importlib.import_module(f"scale_stages.{file}").measure(cache, **case)
    row = {"rows": None, "classes": None, "width": None, "stage": file} | case | found
    if "seconds" in row:
        row.setdefault("rows_per_second", round(case["rows"] / max(row["seconds"], 1e-3)))
    row.setdefault("peak_rss_mb", round(peak_rss_mb()))
    return row


def all_cases() -> list[tuple[str, Row]]:
    """(file, case) of every case there is."""
    files = [module.name for module in pkgutil.iter_modules(scale_stages.__path__)]
    return [
        (file, case) for file in files for case in getattr(importlib.import_module(f"scale_stages.{file}"), "CASES", ())
    ]


def identity(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement."""
    return tuple(row.get(name) for name in ("stage", "rows", "classes", "width"))


def write(path: Path, rows: list[Row]) -> None:
    """Rows into a JSON file; what it held of other cases stays."""
    from importlib.metadata import version

    known = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {identity(row) for row in rows}
    content = {
        "command": "python benchmarks/scale.py --only STAGE:ROWS --json FILE",
        "machine": f"{platform.machine()}, {usable_cores()} cores",
        "versions": {name: version(name) for name in ("torch", "timm", "pyarrow")},
        "rows": [row for row in known if identity(row) not in new] + rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def line(row: Row) -> str:
    """A row of the table that is printed."""
    rest = {name: value for name, value in row.items() if name not in SHOWN}
    cells = [f"{row.get(name) if row.get(name) is not None else '-'!s:>12}" for name in SHOWN]
    return " ".join(cells) + "  " + " ".join(f"{name}={value}" for name, value in rest.items())


def chosen(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> list[tuple[str, Row]]:
    """The cases that were asked for."""
    stage, _, rows = arguments.only.partition(":")
    cases = [(file, case) for file, case in all_cases() if stage in ("", case.get("stage", file))]
    if not cases:
        stages = {case.get("stage", file) for file, case in all_cases()}
        parser.error(f"no stage {stage!r}; there are {', '.join(sorted(stages))}")
    own = {name: getattr(arguments, name) for name in ("rows", "classes", "width") if getattr(arguments, name)}
    if own:
        if not stage:
            parser.error("--rows, --classes and --width go with --only STAGE")
        return [(cases[0][0], cases[0][1] | own)]
    if rows:
        cases = [(file, case) for file, case in cases if case["rows"] == int(rows)]
        if not cases:
            parser.error(f"{stage} has no case of {rows} rows; --only {stage} --rows {rows} makes one")
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="folder for made-up pools; default: one that is removed afterwards")
    parser.add_argument("--only", default="", help="STAGE[:ROWS]")
    parser.add_argument("--json", type=Path, help="where rows go; those of other cases that are there stay")
    for name in ("rows", "classes", "width"):
        parser.add_argument(f"--{name}", type=int, help="of a case of one's own, with --only STAGE")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        print(json.dumps(called(*json.loads(arguments.call))))
        return
    cases = chosen(arguments, parser)
    print(" ".join(f"{name:>12}" for name in SHOWN), flush=True)
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        for file, case in cases:
            row = measured(file, case, arguments.cache or Path(temporary))
            print(line(row), flush=True)
            table.append(row)
            if arguments.json:
                write(arguments.json, table)
    if any("failed" in row for row in table):
        raise SystemExit(1)


if __name__ == "__main__":
    settle_threads(os.environ)  # as the program does, for every process of every stage
    sys.modules["scale"] = sys.modules["__main__"]  # stages import the stopwatch of this very program
    main()
