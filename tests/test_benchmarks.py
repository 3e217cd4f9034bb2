"""Every benchmark imports: one that calls what is no longer there would stay unnoticed until its figures are wanted."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(Path(__file__).parent.parent.joinpath("benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", [path.stem for path in BENCHMARKS])
def test_every_benchmark_imports(name):
    importlib.import_module(name)
