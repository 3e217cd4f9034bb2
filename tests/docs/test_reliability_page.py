"""Every test that docs/reliability.md names is in the tree, and every promise has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (R\d+|–) \|", line)]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_named_test_is_there(path, name):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name.startswith("test_")


def test_every_promise_has_a_test_or_a_benchmark():
    assert {f"R{number}" for number in range(1, 21)} == {line.split("|")[1].strip() for line in ROWS} - {"–"}
    for line in ROWS:
        assert "tests/" in line or "benchmarks/" in line, line
    assert all((ROOT / path).exists() for path in re.findall(r"`(benchmarks/\w+\.py)`", PAGE))
