"""The scale benchmark runs as its docstring says: a small case, and a table of rows that a script can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "scale.py"


def _scale(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_small_case_gives_a_row_and_what_the_file_held_of_other_cases_stays(tmp_path):
    table = tmp_path / "scale.json"
    table.write_text(json.dumps({"rows": [{"rows": 7, "classes": 2, "width": 3, "stage": "rates", "seconds": 1}]}))
    done = _scale("--only", "rates", "--rows", 600, "--classes", 5, "--width", 64, "--json", table)
    assert done.returncode == 0, done.stderr
    other, row = json.loads(table.read_text())["rows"]
    assert other["rows"] == 7
    assert (row["stage"], row["rows"], row["classes"], row["width"]) == ("rates", 600, 5, 64)
    assert row["seconds"] > 0
    assert row["peak_rss_mb"] > 0
    assert row["rows_per_second"] > 0
    assert row["auroc_match"] > 0.6


def test_an_unknown_stage_is_named_with_those_there_are():
    done = _scale("--only", "nothing:5")
    assert done.returncode == 2
    assert "no stage 'nothing'; there are" in done.stderr
    assert "rates_file" in done.stderr
