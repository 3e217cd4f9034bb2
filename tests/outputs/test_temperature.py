"""A temperature goes along with the model, as a number of its own: config, predictions, evaluation, exports, card."""

from __future__ import annotations

import csv
import io
import json
import shutil

import onnx
import pytest
import timm
import torch

from homing.errors import DataError
from homing.models.saved import open_model
from homing.outputs.export import export_model
from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def softened(finished_run, tmp_path_factory):
    """The finished run with a temperature of 2."""
    folder = tmp_path_factory.mktemp("softened") / "run"
    shutil.copytree(finished_run, folder)
    config = json.loads((folder / "model" / "config.json").read_text())
    assert "temperature" not in config  # it was judged on a test
    (folder / "model" / "config.json").write_text(json.dumps(config | {"temperature": 2.0}))
    return folder


def rows_of(run, pool):
    file = io.StringIO()
    predict(run, [pool], file, "csv", QUIET)
    return list(csv.DictReader(io.StringIO(file.getvalue())))


def test_predictions_are_probabilities_at_the_temperature_and_answers_stay(finished_run, softened):
    test = finished_run.parent / "test"
    for raw, soft in zip(rows_of(finished_run, test), rows_of(softened, test), strict=True):
        assert raw["predicted"] == soft["predicted"]
        shares = torch.tensor([float(raw[f"p({name})"]) for name in ("bar", "disk", "ring")], dtype=torch.float64)
        expected = (shares.log() / 2).softmax(0)
        found = torch.tensor([float(soft[f"p({name})"]) for name in ("bar", "disk", "ring")], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_evaluation_gives_both(finished_run, softened):
    pool = PoolSpec(path=str(finished_run.parent / "test"))
    raw, soft = evaluate(finished_run, pool, QUIET), evaluate(softened, pool, QUIET)
    assert raw["calibrated"] is None
    assert soft["nll"] == raw["nll"]
    assert soft["calibrated"]["temperature"] == 2
    assert soft["calibrated"]["nll"] != pytest.approx(raw["nll"], abs=1e-6)


def test_exports_carry_it_beside_the_graph(softened, tmp_path):
    export_model(softened, "onnx", tmp_path / "onnx")
    described = json.loads((tmp_path / "onnx" / "preprocessing.json").read_text())
    assert described["temperature"] == 2
    properties = {item.key: item.value for item in onnx.load(tmp_path / "onnx" / "model.onnx").metadata_props}
    assert json.loads(properties["preprocessing"])["temperature"] == 2
    export_model(softened, "timm", tmp_path / "timm")
    assert open_model(tmp_path / "timm").temperature == 2
    timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)  # which passes over it


@pytest.mark.parametrize("wrong", [0, -1, "hot", True, None])
def test_a_temperature_that_is_no_number_above_0_is_refused(softened, tmp_path, wrong):
    shutil.copytree(softened / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": wrong}))
    with pytest.raises(DataError, match=r"temperature is .*above 0"):
        open_model(tmp_path / "model")
