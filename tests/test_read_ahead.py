"""The next pictures are decoded while the ones before them are in use, whoever uses them."""

from __future__ import annotations

import io
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import optim

from drawn_pools import draw_pool
from homing.models.backbone import Preprocessing
from homing.models.inputs import ImageInputs, batches_of
from homing.pools import images
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from homing.score import score
from homing.training.guide import Guide
from small_run import CLASSES
from training.tensor_inputs import small_model

BATCH = 64  # of predict, evaluate and score
PLAIN = Preprocessing(32, 32, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    return draw_pool(tmp_path_factory.mktemp("many") / "pool", dict.fromkeys(CLASSES, 50))


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
    """What has been decoded so far."""
    seen, decode = [], images.decode

    def noted(data, *settings):
        canvas = decode(data, *settings)
        seen.append(data)
        return canvas

    monkeypatch.setattr(images, "decode", noted)
    return seen


def wait_for_more(seen: list[bytes], than: int) -> None:
    until = time.monotonic() + 60
    while len(seen) <= than:
        assert time.monotonic() < until, f"{len(seen)} pictures are decoded, and no more until they are asked for"
        time.sleep(0.001)


class Waiting(Progress):
    """Holds a command after each batch but the last until pictures behind it have been decoded."""

    def __init__(self, seen: list[bytes], total: int) -> None:
        super().__init__(quiet=True)
        self.seen, self.total, self.done = seen, total, 0

    @contextmanager
    def stage(self, name, total):
        def advance(count):
            self.done += count
            if self.done < self.total:
                wait_for_more(self.seen, self.done)

        yield advance


def _predict(run, pool, output, progress):
    predict(run, [pool], io.StringIO(), "jsonl", progress)


def _evaluate(run, pool, output, progress):
    evaluate(run, PoolSpec(path=str(pool)), progress)


def _score(run, pool, output, progress):
    score(run, PoolSpec(path=str(pool)), output, progress)


@pytest.mark.parametrize("command", [_predict, _evaluate, _score])
def test_a_command_decodes_while_it_computes(finished_run, pool, decoded, tmp_path, command):
    shutil.copytree(finished_run, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    text = recipe.read_text()
    assert "workers: 0" in text
    recipe.write_text(text.replace("workers: 0", "workers: 2"))
    progress = Waiting(decoded, 150)
    command(tmp_path / "run", pool, tmp_path / "scores.parquet", progress)
    assert (progress.done, len(decoded)) == (150, 150)


@pytest.fixture
def inputs(pool):
    listed = read_pool(PoolSpec(path=str(pool)))
    opened = Images(listed.store, listed.rows, listed.ids, canvas=32, cache_gb=0.0, workers=2)
    yield ImageInputs(opened, PLAIN, None, seed=0, device=torch.device("cpu"))
    opened.close()


def test_evaluations_and_scans_decode_while_they_compute(inputs, decoded):
    for walk in (inputs.evaluating, inputs.scanning, inputs.examining):
        decoded.clear()
        for number, _ in enumerate(walk(batches_of(np.arange(150), 50)), start=1):
            wait_for_more(decoded, min(50 * number, 149))


def guide_of(inputs, model) -> Guide:
    labels = torch.arange(150) % 3
    guide = Guide(inputs, labels, 130, Accelerator(cpu=True), batch_size=6, refresh_every=4, window=1)
    guide.attach(model, optim.SGD(model.parameters(), 0.1))
    return guide


def test_the_guide_decodes_for_its_next_gradient_while_the_model_trains(inputs, decoded):
    model = small_model()
    guide = guide_of(inputs, model)
    for number in range(3):
        guide.refresh(4 * number)
        wait_for_more(decoded, 6 * (number + 1))
    for step in (8, 36):  # of rows that were read ahead, and somewhere else, as after a resume
        guide.refresh(step)
        fresh = guide_of(inputs, model)
        fresh.refresh(step)
        assert all(torch.equal(guide.direction[name], value) for name, value in fresh.direction.items())
