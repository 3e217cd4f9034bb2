"""Arrays on disk that are there as a whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import tempfile

import numpy as np
import pytest

from homing.models.shelf import Shelf
from processes import LONG_ENOUGH, ended, start

SHAPE = (3, 4)


def some(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def test_what_was_put_comes_back_and_the_rest_is_missing(tmp_path):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        shelf, numbers = Shelf(file, 10, SHAPE, "float32"), np.array([7, 0, 3])
        assert not shelf.has(np.arange(10)).any()
        shelf.put(numbers, some(3))
        found, good = shelf.take(np.array([3, 4, 7, 7]))
        assert good.tolist() == [True, False, True, True]
        assert np.array_equal(found[good], some(3)[[2, 0, 0]])
        assert shelf.has(np.arange(10)).nonzero()[0].tolist() == [0, 3, 7]
    assert not list(tmp_path.iterdir())


def test_half_precision_rounds_and_holds_what_is_too_large(tmp_path):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        shelf, values = Shelf(file, 1, SHAPE, "float16"), some(1)
        values[0, 0] = [1e6, -np.inf, np.nan, 1e-12]
        shelf.put(np.array([0]), values)
        found = shelf.take(np.array([0]))[0].astype(np.float32)
        assert np.allclose(found[0, 1:], values[0, 1:], rtol=2**-11)
        assert found[0, 0].tolist()[:2] == [65504.0, -np.inf]
        assert np.isnan(found[0, 0, 2])
        assert np.array_equal(found, shelf.rounded(values).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("damage", [0, 5])
def test_what_is_half_written_is_missing(tmp_path, damage):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        shelf = Shelf(file, 4, SHAPE, "float32")
        shelf.put(np.arange(4), some(4))
        os.pwrite(file.fileno(), b"?!", shelf._start + 2 * shelf.row_bytes + damage)
        assert shelf.take(np.arange(4))[1].tolist() == [True, True, False, True]


def test_another_process_finds_what_one_has_put(tmp_path):
    path = tmp_path / "shelf"
    path.touch()
    process = start(_put, path)
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 0
    with path.open("r+b") as file:
        shelf = Shelf(file, 6, SHAPE, "float32", shared=True)
        found, good = shelf.take(np.arange(6))
        assert good.tolist() == [False, True, False, False, True, False]
        assert np.array_equal(found[good], some(2))


def _put(path) -> None:
    with path.open("r+b") as file:
        Shelf(file, 6, SHAPE, "float32", shared=True).put(np.array([1, 4]), some(2))


def test_on_a_full_disk_nothing_more_is_put_and_what_is_there_stays(tmp_path):
    process = start(_fill_up, tmp_path / "shelf")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 0


def _fill_up(path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with path.open("w+b") as file:
        shelf = Shelf(file, 4, SHAPE, "float32")
        resource.setrlimit(resource.RLIMIT_FSIZE, (shelf._start + 2 * shelf.row_bytes,) * 2)
        shelf.put(np.arange(4), some(4))
        assert shelf.is_full
        assert shelf.take(np.arange(4))[1].tolist() == [True, True, False, False]
        assert Shelf(file, 4_000, SHAPE, "float32").is_full  # not even the empty file fits
