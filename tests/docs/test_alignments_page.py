"""Every code block of docs/alignments.md runs as it is printed."""

import dataclasses
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from homing.rates import Direction, RateTable
from homing.rates.rates_by_id import rates_by_id

torch.set_num_threads(1)

PAGE = Path(__file__).parents[2] / "docs" / "alignments.md"
BLOCKS = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))

COLUMNS = ["sample_id", "source", "label", "rate", "target_likeness", "label_consistency", "target_alignment", "visits"]


def run(*names):
    namespace = {"__name__": "page"}
    for name in names:
        exec(compile(BLOCKS[name], f"docs/alignments.md, block {name}", "exec"), namespace)
    return namespace


def test_every_block_has_a_name_and_a_test():
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(BLOCKS)
    assert set(BLOCKS) == {"setup", "plain", "amortised", "towards", "trainer", "keep", "lightning", "timm", "named"}


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


def steady(page):
    """A trainer whose direction has no memory, on a model and an order of the rows that are always the same."""
    torch.manual_seed(0)
    model = page["timm"].create_model("test_resnet", num_classes=4)
    arguments = dataclasses.replace(page["trainer"].args, max_steps=6, save_strategy="steps", save_steps=3, seed=5)
    rates = RateTable(num_rows=48)
    parts = {"train_dataset": page["source"], "data_collator": page["collate"], "rates": rates}
    trainer = page["RatedTrainer"](model=model, args=arguments, **parts)
    trainer.pull = Direction(trainer.model, window=1)
    trainer.add_callback(page["KeepRates"](rates, page["ids"]))
    return trainer


@pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers.*")
def test_a_trainer_keeps_its_rates_and_goes_on_with_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = run("setup", "trainer", "keep")
    whole = steady(page)
    whole.train()
    first = pq.read_table("trainer/rates.parquet")
    Path("trainer/rates.parquet").unlink()
    again = steady(page)
    again.train(resume_from_checkpoint="trainer/checkpoint-3")
    assert torch.equal(again.rates.visits, whole.rates.visits)
    assert torch.allclose(again.rates.rates, whole.rates.rates, atol=1e-5)
    assert again.rates.rates.std() > 0
    table = pq.read_table("trainer/rates.parquet")
    assert table.column_names == first.column_names == COLUMNS
    assert table["sample_id"].to_pylist() == page["ids"]
    assert table["rate"].to_pylist() == again.rates.rates.tolist()
    assert sum(table["visits"].to_pylist()) == 6 * 16


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore:.*many workers.*", "ignore:.*in eval mode.*")
def test_lightning_keeps_its_rates_and_goes_on_with_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rates = run("setup", "lightning")["rates"]
    assert rates.visits.tolist() == [2] * 48  # one epoch before the checkpoint, one after
    table = pq.read_table("rates.parquet")
    assert table.column_names == COLUMNS
    assert table["rate"].to_pylist() == rates.rates.tolist()
    assert rates_by_id(Path("rates.parquet"), ["image-7", "image-3"]).tolist() == rates.rates[[7, 3]].tolist()
