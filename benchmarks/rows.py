"""Rows of finished runs in a JSON file, which grows by one at a time: what has its row is not done again."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> dict:
    """What rows of runs on one thread say of where they were made."""
    return {
        "hardware": f"{platform.machine()}, 1 thread",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
    }


def read_rows(results: Path) -> list[dict]:
    """The rows of a file; none where there is no file."""
    return json.loads(results.read_text())["rows"] if results.exists() else []


def add_row(row: dict, results: Path, about: dict) -> None:
    """Keep a row, below what there is to say about all of them.

    Another process may have added its own meanwhile, so the file is read again.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    temporary = results.with_suffix(".part")
    temporary.write_text(json.dumps(about | {"rows": [*read_rows(results), row]}, indent=1) + "\n")
    temporary.rename(results)
