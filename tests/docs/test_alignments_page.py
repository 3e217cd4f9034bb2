"""Every code block of docs/alignments.md runs as it is printed."""

import dataclasses
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from homing.rates import Direction, RateTable
from homing.rates.rates_by_id import rates_by_id
from processes import together

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


def _trained_and_resumed(folder: Path) -> None:
    """The Trainer's whole run, and its second half from a checkpoint, in this process's share."""
    os.chdir(folder)
    page = run("setup", "trainer", "keep")
    tables = {}
    for name, checkpoint in (("whole", None), ("again", "trainer/checkpoint-3")):
        trainer = steady(page)
        trainer.train(resume_from_checkpoint=checkpoint)
        tables[name] = trainer.rates.state_dict()
    torch.save(tables, folder / f"{os.environ['RANK']}.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers.*")
def test_a_trainer_in_two_processes_has_one_table_and_goes_on_with_it(tmp_path):
    together(_trained_and_resumed, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("whole", "again"):
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])
    assert int(first["whole"]["visits"].sum()) == 6 * 32  # of 48 rows each: accelerate fills the last batches up
    assert torch.equal(first["whole"]["visits"], first["again"]["visits"])
    assert torch.allclose(first["whole"]["rate"], first["again"]["rate"], atol=1e-5)
    assert first["whole"]["rate"].std() > 0
    table = pq.read_table(tmp_path / "trainer" / "rates.parquet")
    assert table["rate"].to_pylist() == first["again"]["rate"].tolist()


def _in_lightning(folder: Path) -> None:
    os.chdir(folder)
    BLOCKS["lightning"] = BLOCKS["lightning"].replace(
        'accelerator="cpu",', 'accelerator="cpu", devices=2, strategy="ddp",'
    )
    rates = run("setup", "lightning")["rates"]
    torch.save(rates.state_dict(), folder / f"{os.environ['RANK']}.pt")


def test_lightning_in_two_processes_has_one_table_and_goes_on_with_it(tmp_path):
    together(_in_lightning, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["visits"].tolist() == [2] * 48
    assert first["rate"].std() > 0
    assert pq.read_table(tmp_path / "rates.parquet")["rate"].to_pylist() == first["rate"].tolist()
