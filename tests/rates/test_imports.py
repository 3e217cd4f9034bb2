"""Rates in somebody else's loop: torch is enough."""

from __future__ import annotations

import subprocess
import sys


def test_alignments_need_torch_alone():
    script = (
        "import sys, homing.rates; homing.rates.Alignment, homing.rates.Direction, homing.rates.RateTable(3)\n"
        "found = {'sklearn', 'scipy', 'timm', 'datasets', 'accelerate', 'pandas'} & set(sys.modules)\n"
        "assert not found, found\n"
        "homing.rates.learn_rates"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
