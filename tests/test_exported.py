"""`predict` and `evaluate` on folders that `homing export` wrote; tables and embeddings; what holds no model."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from typer.testing import CliRunner

from homing.cli.app import app
from homing.errors import DataError, RecipeError
from homing.models.saved import open_model
from homing.outputs.export import export_model
from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec

QUIET = Progress(quiet=True)


def shares_of(model, *paths, **how):
    file = io.BytesIO()
    bad, _ = predict(model, paths, file, "parquet", QUIET, **how)
    return pq.read_table(file).to_pandas(), bad


@pytest.mark.parametrize("form", ["timm", "onnx"])
def test_an_exported_folder_predicts_and_measures_as_the_run_does(finished_run, exported, form):
    test = finished_run.parent / "test"
    ours, _ = shares_of(finished_run, test)
    theirs, _ = shares_of(exported / form, test, device="cpu", batch_size=5)
    assert list(ours.columns) == ["image", "predicted", "probability", "error", "p(bar)", "p(disk)", "p(ring)"]
    assert ours.image.tolist() == theirs.image.tolist()
    np.testing.assert_allclose(ours.filter(like="p("), theirs.filter(like="p("), atol=1e-5)
    found, own = (evaluate(model, PoolSpec(path=str(test)), QUIET) for model in (exported / form, finished_run))
    assert found["nll"] == pytest.approx(own["nll"], abs=1e-5)
    assert found["confusion"] == own["confusion"]


def test_a_table_has_a_row_for_a_bad_image_too(finished_run, tmp_path):
    good = next((finished_run.parent / "test" / "bar").iterdir())
    (tmp_path / "a.png").write_bytes(b"text")
    (tmp_path / "b.png").write_bytes(good.read_bytes())
    for suffix in ("npy", "parquet"):
        table, bad = shares_of(
            finished_run, tmp_path / "a.png", tmp_path / "b.png", embeddings=tmp_path / f"e.{suffix}"
        )
    assert [item.name for item in bad] == [str(tmp_path / "a.png")]
    assert table.error[0] == "not a readable image: of no image format"
    assert table.predicted.isna().tolist() == [True, False]
    seen = np.load(tmp_path / "e.npy")
    assert np.isnan(seen[0]).all()
    rows = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert rows[0] == {"image": str(tmp_path / "a.png"), "embedding": None}
    np.testing.assert_array_equal(np.array(rows[1]["embedding"], np.float32), seen[1])


def test_embeddings_are_what_the_head_sees(finished_run, tmp_path):
    table, _ = shares_of(finished_run, finished_run.parent / "test", batch_size=7, embeddings=tmp_path / "seen.npy")
    head = open_model(finished_run / "model").model.get_classifier()
    with torch.inference_mode():
        shares = head(torch.from_numpy(np.load(tmp_path / "seen.npy"))).softmax(1)
    np.testing.assert_allclose(table.filter(like="p("), shares.numpy(), atol=1e-5)


def test_what_an_onnx_file_cannot_do_is_one_sentence(finished_run, exported, tmp_path):
    test = finished_run.parent / "test"
    with pytest.raises(RecipeError, match="class scores alone"):
        predict(exported / "onnx", [test], io.StringIO(), "csv", QUIET, embeddings=tmp_path / "e.npy")
    with pytest.raises(RecipeError, match=r"--device 'nowhere': there is no such device here; there is cpu"):
        predict(exported / "onnx", [test], io.StringIO(), "csv", QUIET, device="nowhere")
    (tmp_path / "model.onnx").write_bytes(b"half")
    with pytest.raises(DataError, match="cannot be opened as an ONNX model"):
        predict(tmp_path, [test], io.StringIO(), "csv", QUIET)
    assert not (tmp_path / "e.npy").exists()


def test_the_command_writes_what_the_name_says(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["predict", str(finished_run), str(finished_run.parent / "test"), "--quiet"]
    done = CliRunner().invoke(app, [*command, "-o", "x.parquet", "--embeddings", "e.parquet"])
    assert done.output == "x.parquet: 18 images\n"
    assert pq.read_table("x.parquet").num_rows == pq.read_table("e.parquet").num_rows == 18
    for more, told in (
        (["-o", "x.parquet"], "exists already"),
        (["-o", "y.csv", "--embeddings", "y.txt"], ".npy or .parquet"),
        (["--format", "parquet"], "give one with --output"),
    ):
        done = CliRunner().invoke(app, [*command, *more])
        assert isinstance(done.exception, RecipeError)
        assert told in str(done.exception)


@pytest.mark.parametrize(
    ("form", "dtype", "atol"),
    [("timm", "float16", 1e-2), ("timm", "bfloat16", 1e-1), ("onnx", "float16", 1e-2)],  # as `narrow.TOLERANCES`
)
def test_weights_of_16_bits_take_half_the_bytes_and_agree(finished_run, exported, tmp_path, form, dtype, atol):
    export_model(finished_run, form, tmp_path / "out", dtype=dtype)
    name = {"timm": "model.safetensors", "onnx": "model.onnx"}[form]
    sizes = [(folder / name).stat().st_size for folder in (tmp_path / "out", exported / form)]
    assert sizes[0] < 0.7 * sizes[1]
    ours, _ = shares_of(exported / form, finished_run.parent / "test")
    theirs, _ = shares_of(tmp_path / "out", finished_run.parent / "test")
    np.testing.assert_allclose(ours.filter(like="p("), theirs.filter(like="p("), atol=atol)
    if form == "timm":  # as everyone opens it
        model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
        assert model.get_classifier().weight.dtype == torch.float32


def test_an_onnx_file_of_bfloat16_is_refused(finished_run, tmp_path):
    with pytest.raises(RecipeError, match="take float16, or --format timm"):
        export_model(finished_run, "onnx", tmp_path / "out", dtype="bfloat16")


@pytest.mark.parametrize("verb", [predict, evaluate, export_model])
def test_a_run_without_a_model_says_what_it_holds(tmp_path, verb):
    def asked():
        if verb is predict:
            return predict(tmp_path, [tmp_path], io.StringIO(), "csv", QUIET)
        if verb is evaluate:
            return evaluate(tmp_path, PoolSpec(path=str(tmp_path)), QUIET)
        return export_model(tmp_path, "timm", tmp_path / "out")

    (tmp_path / "results.json").write_text(json.dumps({"headline": "none", "target": None}))
    with pytest.raises(DataError, match="holds rates only, no model"):
        asked()
    (tmp_path / "results.json").write_text(json.dumps({"targets": {"acme": {}, "globex": {}}}))
    with pytest.raises(DataError, match=r"several targets.*give one of .*acme, .*globex"):
        asked()
