"""How often a repeated test repeats: a little in every run, a lot with `pytest --long`."""

from __future__ import annotations

import os

LONG = os.environ.get("HOMING_LONG_TESTS") == "1"


def often(usually: int, on_demand: int) -> int:
    """The number of repetitions: `on_demand` with --long."""
    return on_demand if LONG else usually
