"""Every code block of docs/alignments.md runs as it is printed."""

import re
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

PAGE = Path(__file__).parents[2] / "docs" / "alignments.md"
BLOCKS = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def run(*names):
    namespace = {"__name__": "page"}
    for name in names:
        exec(compile(BLOCKS[name], f"docs/alignments.md, block {name}", "exec"), namespace)
    return namespace


def test_every_block_has_a_name_and_a_test():
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(BLOCKS)
    assert set(BLOCKS) == {"setup", "plain", "amortised", "towards", "trainer", "timm", "named"}


@pytest.mark.parametrize("name", ["plain", "amortised", "towards", "trainer", "timm"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers.*")
def test_loop_learns_rates(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    rates = run("setup", name)["rates"]
    visits = {"plain": 48, "amortised": 16, "towards": 48, "trainer": 48, "timm": 48}
    assert int(rates.visits.sum()) == visits[name]
    assert rates.rates.std() > 0


def test_named_losses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("setup", "plain", "named")["values"].isfinite().all()
