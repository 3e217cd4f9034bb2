"""Every code block of docs/sampler.md runs as it is printed; those of the frameworks in two processes."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blocks import ROOT, blocks_of

from homing.rates import RateSampler
from processes import together

PAGE = ROOT / "docs" / "sampler.md"
BLOCKS = {block.name: block.text for block in blocks_of(PAGE)}
SHARED = ("torch", "stateful", "accelerate", "trainer", "lightning", "timm")
ALONE = ("byid", "dynamic", "resume")
ROWS = 200


def run(name, **names):
    namespace = {"__name__": "page", **names}
    for block in {"setup": None, name: None}:
        exec(compile(BLOCKS[block], f"docs/sampler.md, block {block}", "exec"), namespace)
    return namespace


def _in_two(name: str, folder: Path) -> None:
    multiprocessing.set_start_method("fork", force=True)  # the workers of a loader; others import the script anew
    os.chdir(folder)
    seen = run(name)["seen"]
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(seen))


def _resumed(name: str, folder: Path) -> None:
    """The Trainer once more, from its checkpoint in the second epoch."""
    _in_two(name, folder)
    BLOCKS["trainer"] = BLOCKS["trainer"].replace("trainer.train()", "trainer.train('trainer/checkpoint-15')")
    rest = run("trainer")["seen"]
    seen = json.loads((folder / f"{os.environ['RANK']}.json").read_text())
    assert rest == [[], seen[1][3 * 8 :]]  # an epoch has 12 steps


def counts_of(epoch, num_samples):
    sampler = RateSampler(run("setup")["rates"], num_samples, seed=0, rank=0, world_size=1)
    sampler.set_epoch(epoch)
    return np.bincount(list(sampler), minlength=ROWS)


def test_every_block_is_run():
    assert set(BLOCKS) == {"setup", *SHARED, *ALONE}


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_make_each_visit_once(name, tmp_path):
    together(_resumed if name == "trainer" else _in_two, 2, name, tmp_path)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    num_samples = ROWS // 16 * 16 if name in ("accelerate", "trainer") else ROWS
    for epoch in (0, 1):
        first, second = seen[0][epoch], seen[1][epoch]
        assert len(first) == len(second) == num_samples // 2
        np.testing.assert_array_equal(np.bincount(first + second, minlength=ROWS), counts_of(epoch, num_samples))


def _resumed_in_lightning(folder: Path) -> None:
    """Lightning once more, from its checkpoint within the first epoch, over the loader that keeps its place."""
    checkpoints = f'callbacks=[ModelCheckpoint("{folder}", filename="{{step}}", every_n_train_steps=5, save_top_k=-1)],'
    block = BLOCKS["lightning"].replace("DataLoader(", "StatefulDataLoader(").replace("max_epochs=2,", "max_epochs=1,")
    block = block.replace("enable_checkpointing=False,", checkpoints)
    imports = "from pytorch_lightning.callbacks import ModelCheckpoint\n"
    BLOCKS["lightning"] = f"{imports}from torchdata.stateful_dataloader import StatefulDataLoader\n{block}"
    _in_two("lightning", folder)
    (whole, _) = json.loads((folder / f"{os.environ['RANK']}.json").read_text())
    resumed = f'batch_size=8), ckpt_path="{folder}/step=5.ckpt")'
    BLOCKS["lightning"] = BLOCKS["lightning"].replace("batch_size=8))", resumed)
    (rest, _) = run("lightning")["seen"]
    assert len(whole) == ROWS / 2
    assert rest == whole[5 * 8 :]


def test_lightning_goes_on_in_the_middle_of_an_epoch(tmp_path):
    together(_resumed_in_lightning, 2, tmp_path)


def _batched_in_lightning(folder: Path) -> None:
    BLOCKS["lightning"] = BLOCKS["lightning"].replace(
        "sampler=RateSampler(rates, seed=0), batch_size=8",
        "batch_sampler=RateBatchSampler(RateSampler(rates, seed=0), 8)",
    )
    with pytest.raises(TypeError, match="use_distributed_sampler=False"):
        run("lightning")
    BLOCKS["lightning"] = BLOCKS["lightning"].replace("devices=2,", "devices=2, use_distributed_sampler=False,")
    _in_two("lightning", folder)


def test_lightning_takes_batches_where_it_is_told_to(tmp_path):
    together(_batched_in_lightning, 2, tmp_path)
    for epoch in (0, 1):
        rows = [row for rank in (0, 1) for row in json.loads((tmp_path / f"{rank}.json").read_text())[epoch]]
        np.testing.assert_array_equal(np.bincount(rows, minlength=ROWS), counts_of(epoch, ROWS))


def test_a_resumed_sampler_makes_the_rest():
    np.testing.assert_array_equal(np.bincount(run("resume")["seen"][0], minlength=ROWS), counts_of(0, ROWS))


def test_rates_that_are_learned_meanwhile():
    page = run("dynamic")
    assert [len(rows) for rows in page["seen"]] == [ROWS, ROWS]
    assert sorted(page["sampler"]) == list(range(ROWS))


def test_rates_by_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("runs/customer/rates.parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"sample_id": ["a", "b", "c"], "rate": [1.0, 0.0, 2.0]}), path)
    assert set(run("byid", ids=["c", "b"])["sampler"]) == {0}
