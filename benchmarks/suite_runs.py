"""The whole suite, many times over: is it green every time, also beside other work?

Each run is the README's `pytest` in a clean checkout of the commit at hand, with this interpreter, and adds a row when
it ends: what failed by name, seconds, CPU seconds (of processes that were waited for), busy processes beside it, the
machine's load at its start. Runs of this commit that have their row are not done again: it can be stopped at any time.

    python benchmarks/suite_runs.py --runs 15
    python benchmarks/suite_runs.py --runs 5 --busy 2
    python benchmarks/suite_runs.py --runs 5 --busy 1 --beside "python benchmarks/bed.py --cache DIR --results FILE"
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from rows import add_row, read_rows

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "suite_runs.json"
BUSY = shlex.join([sys.executable, "-c", "while True: pass"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1, help="of this commit beside so many busy processes")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile, ended with the run")
    parser.add_argument("--beside", default=BUSY, help="what each of them runs (default: an endless loop)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    about = {"command": "python benchmarks/suite_runs.py", "cores": os.cpu_count()}
    commit = commit_of(ROOT)
    while len(done(arguments.results, commit, arguments.busy)) < arguments.runs:
        row = run_suite(ROOT, commit, arguments.busy, arguments.beside)
        add_row(row, arguments.results, about)
        print(row, flush=True)
    print(standing(read_rows(arguments.results)))


def commit_of(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def done(results: Path, commit: str, busy: int) -> list[dict]:
    return [row for row in read_rows(results) if (row["commit"], row["busy"]) == (commit, busy)]


def run_suite(root: Path, commit: str, busy: int, beside: str = BUSY) -> dict:
    """The row of one run: its suite is that of a commit, without what is not committed."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        checkout, report = Path(name, "checkout"), Path(name, "junit.xml")
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(root.resolve()), str(checkout)], check=True)
        subprocess.run(["git", "-C", str(checkout), "checkout", "--quiet", "--detach", commit], check=True)
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}"]
        environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
        row = {"commit": commit, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "busy": busy}
        row["load"] = round(os.getloadavg()[0], 1)
        with busy_processes(busy, beside):
            wall, cpu = time.monotonic(), cpu_of_children()
            ended = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=False)
            row |= {"seconds": round(time.monotonic() - wall), "cpu_seconds": round(cpu_of_children() - cpu)}
        return row | {"exit": ended.returncode} | outcome(report)


def outcome(report: Path) -> dict:
    """How many tests passed and failed, and which failed; nothing of a run that left no report."""
    if not report.exists():
        return {"passed": 0, "failed": 0, "names": []}
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    names = [f"{case.get('classname')}::{case.get('name')}" for case in bad]
    return {"passed": len(cases) - len(bad), "failed": len(bad), "names": names}


@contextmanager
def busy_processes(count: int, command: str) -> Iterator[None]:
    processes = [subprocess.Popen(shlex.split(command)) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def standing(rows: list[dict]) -> str:
    """How many of the latest runs were green without a break."""
    green = list(takewhile(lambda row: row["exit"] == 0, reversed(rows)))
    beside = sum(row["busy"] > 0 for row in green)
    commits = len({row["commit"] for row in green})
    return f"green in a row: {len(green)} of {len(rows)} runs ({beside} beside busy processes), of commits: {commits}"


if __name__ == "__main__":
    main()
