"""Every model that was trained is kept, a method is added to a finished run, and a training prolonged."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from homing.errors import RecipeError
from homing.outputs.export import export_model
from homing.predict import evaluate
from homing.progress import Progress
from homing.recipe.schema import PoolSpec
from small_run import draw_problem

QUIET = Progress(quiet=True)
FAST = ("training.steps=4", "model.trainable=head", "rates.method=uniform", "output.checkpoint_every=2")


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("keeping"))


def test_every_model_is_kept_and_gives_the_figures_that_the_run_measured(finished_run):
    results, test = read(finished_run), PoolSpec(path=str(finished_run.parent / "test"))
    assert results["models"] == {
        "shipped": "hierarchical",
        "kept": ["hierarchical", "pooled_oversampled"],
        "left_out": [],
    }
    rows = {"hierarchical": results["target"], **results["baselines"]}
    for name, row in rows.items():
        found = evaluate(finished_run, test, QUIET, method=name)
        assert {key: found[key] for key in ("accuracy", "num_test")} == {
            key: row[key] for key in ("accuracy", "num_test")
        }
        assert found["nll"] == pytest.approx(row["nll"], abs=1e-6)
    assert rows["hierarchical"]["nll"] != rows["pooled_oversampled"]["nll"]
    assert evaluate(finished_run, test, QUIET)["nll"] == pytest.approx(results["target"]["nll"], abs=1e-6)


def read(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_runs_own_model_takes_no_room_twice_and_survives_a_copy(finished_run, tmp_path):
    one, other = (finished_run / place / "model.safetensors" for place in ("model", "models/hierarchical"))
    assert one.samefile(other)
    shutil.copytree(finished_run, tmp_path / "copy")
    test = PoolSpec(path=str(finished_run.parent / "test"))
    assert evaluate(tmp_path / "copy", test, QUIET)["accuracy"] == read(finished_run)["target"]["accuracy"]


def test_a_method_that_was_not_kept_is_named_with_those_that_were(finished_run, tmp_path):
    with pytest.raises(RecipeError, match=r"'pooled' is kept here; --method takes hierarchical, pooled_oversampled$"):
        export_model(finished_run, "timm", tmp_path / "out", method="pooled")
    assert not (tmp_path / "out").exists()
    shutil.copytree(finished_run, tmp_path / "old")  # of before there was `models/`
    shutil.rmtree(tmp_path / "old" / "models")
    results = read(finished_run)
    del results["models"]
    (tmp_path / "old" / "results.json").write_text(json.dumps(results))
    export_model(tmp_path / "old", "timm", tmp_path / "out", method="hierarchical")
    with pytest.raises(RecipeError, match=r"--method takes hierarchical$"):
        export_model(tmp_path / "old", "timm", tmp_path / "other", method="pooled_oversampled")


def test_an_exported_baseline_comes_with_its_own_figures(finished_run, tmp_path):
    export_model(finished_run, "timm", tmp_path / "out", method="pooled_oversampled")
    card, results = (tmp_path / "out" / "README.md").read_text(), read(finished_run)
    assert "by the method “Pooled, target oversampled” (`pooled_oversampled`" in card
    assert f"| **this model** | {results['baselines']['pooled_oversampled']['accuracy']:.1%} |" in card
    assert f"| homing | {results['target']['accuracy']:.1%} |" in card
    ours, kept = (
        load_file(f / "model.safetensors") for f in (tmp_path / "out", finished_run / "models/pooled_oversampled")
    )
    assert all(torch.equal(ours[name], kept[name]) for name in kept)
