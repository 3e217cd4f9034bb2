"""Grey pictures whose numbers do not fill their type come out black: whoever decodes them says so."""

from __future__ import annotations

import io

import numpy as np
import pytest
import yaml
from PIL import Image

from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe
from homing.validate import validate_data
from small_run import draw_folder
from small_scan import SmallScan

TOLD = "images are black, or of one colour as good as throughout"


def draw_dark(root):
    """A pool in which two of eight pictures hold 12 bits in 16, or 8 in 32."""
    draw_folder(root, 2, seed=1, share_dark=0)
    values = np.arange(32 * 32).reshape(32, 32)
    Image.fromarray((values * 4).astype(np.uint16)).save(root / "bar" / "dark.png")
    Image.fromarray((values // 4).astype(np.int32)).save(root / "disk" / "dark.tif")
    return root


@pytest.fixture
def dark(tmp_path):
    return draw_dark(tmp_path / "dark")


def test_validate_warns(dark):
    tree = {"data": {role: {"path": str(dark)} for role in ("source", "target")}, "training": {"steps": 1}}
    (told,) = [text for text in validate_data(parse_recipe(yaml.safe_dump(tree)), Progress()).warnings if TOLD in text]
    assert told.startswith("4 of 16 ")
    assert "(first: source bar/dark.png)" in told


def test_a_scan_warns_of_what_it_decodes(dark, tmp_path, capsys):
    small = SmallScan(dark, tmp_path / "cache")
    small.scan(progress=Progress())
    assert f"warning: 2 of 8 {TOLD} (first: bar/dark.png)" in capsys.readouterr().err
    small.scan(progress=Progress())
    assert TOLD not in capsys.readouterr().err  # decoded nothing


def test_predictions_and_evaluations_warn(dark, finished_run, capsys):
    predict(finished_run, [dark], io.StringIO(), "csv", Progress())
    assert f"warning: 2 of 8 {TOLD} (first: {dark}/bar/dark.png)" in capsys.readouterr().err
    evaluate(finished_run, PoolSpec(path=str(dark)), Progress())
    assert f"warning: 2 of 8 {TOLD} (first: bar/dark.png)" in capsys.readouterr().err
    predict(finished_run, [finished_run.parent / "test"], io.StringIO(), "csv", Progress())
    assert TOLD not in capsys.readouterr().err
