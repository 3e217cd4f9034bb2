"""Runs that stop after the rates, and features that the next run takes from the cache."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from homing.cli.app import app
from homing.errors import DataError, RecipeError
from homing.flow import run
from homing.recipe.reading import read_recipe, shipped_recipes
from small_run import draw_problem, small_recipe


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


def reweight(problem, output, *overrides):
    recipe = small_recipe(problem, "training.epochs=0", f"output.cache={problem / 'cache'}", *overrides)
    return run(recipe, output, quiet=True)


def rates_of(result):
    return pq.read_table(result.folder / "rates.parquet").to_pandas()


def test_a_run_without_training_leaves_the_rates_that_one_with_training_has(problem, tmp_path):
    bare = reweight(problem, tmp_path / "bare")
    trained = run(small_recipe(problem, "output.cache=none", "training.steps=2"), tmp_path / "trained", quiet=True)
    ours, theirs = rates_of(bare), rates_of(trained)
    assert (ours.sample_id == theirs.sample_id).all()
    assert ours.rate.to_numpy() == pytest.approx(theirs.rate.to_numpy(), rel=1e-3)
    assert (ours.visits == 0).all()
    assert {path.name for path in bare.folder.iterdir()} == {
        ".homing",
        "recipe.yaml",
        "results.json",
        "rates.parquet",
        "scorer",
        "map.parquet",
    }
    results = json.loads((bare.folder / "results.json").read_text())
    assert (results["headline"], results["target"], results["baselines"]) == ("none", None, {})
    assert results["cost"]["source_gradients"] == 0
    assert any("data.test: no effect" in text for text in results["warnings"])
    assert run(read_recipe(bare.folder / "recipe.yaml"), bare.folder, resume=True, quiet=True).results == results


def test_the_next_run_over_the_same_source_scans_none_of_it(problem, tmp_path):
    first = reweight(problem, tmp_path / "first", f"output.cache={tmp_path / 'cache'}")
    again = reweight(problem, tmp_path / "again", f"output.cache={tmp_path / 'cache'}")
    assert [r.results["cost"]["scanned_source_images"] for r in (first, again)] == [42, 0]
    assert (rates_of(first).rate == rates_of(again).rate).all()
    for change in ("model.image_size=48", "seed=3"):  # seed: of random weights
        other = reweight(problem, tmp_path / change, f"output.cache={tmp_path / 'cache'}", change)
        assert other.results["cost"]["scanned_source_images"] == 42, change


def test_an_image_is_known_by_what_it_shows_whatever_its_name(problem, tmp_path):
    shutil.copytree(problem, tmp_path / "pools")
    cache, rings = f"output.cache={tmp_path / 'cache'}", tmp_path / "pools" / "source" / "ring"

    def scanned(name):
        result = reweight(tmp_path / "pools", tmp_path / name, cache)
        return result.results["cost"]["scanned_source_images"], rates_of(result).set_index("sample_id")

    count, before = scanned("first")
    assert count == 42
    (rings / "005.png").write_bytes((rings / "006.png").read_bytes())  # another picture under the name, a known one
    count, rates = scanned("again")
    assert count == 0
    assert abs(rates.target_likeness["ring/005.png"] - before.target_likeness["ring/005.png"]) > 0.01
    shutil.move(rings.parent / "bar" / "000.png", rings.parent / "disk" / "900.png")
    assert scanned("moved")[0] == 0
    Image.new("RGB", (24, 24), "red").save(rings / "005.png")
    assert scanned("new")[0] == 1


def test_bad_images_are_known_from_the_cache_too(problem, tmp_path):
    shutil.copytree(problem, tmp_path / "pools")
    (tmp_path / "pools" / "source" / "disk" / "003.png").write_bytes(b"no picture")
    (tmp_path / "pools" / "target" / "bar" / "001.png").write_bytes(b"no picture")
    cache = f"output.cache={tmp_path / 'cache'}"
    for _ in range(2):
        with pytest.raises(DataError, match=r"(?s)2 of 72 images.*source disk/003.*target bar/001"):
            reweight(tmp_path / "pools", tmp_path / "run", cache)
        assert not (tmp_path / "run").exists()
    dropped = reweight(tmp_path / "pools", tmp_path / "run", cache, "data.on_bad_image=drop")
    assert dropped.results["cost"]["scanned_source_images"] == 0
    table = rates_of(dropped).set_index("sample_id")
    assert (len(table), table.rate["disk/003.png"]) == (42, 0)
    trained = small_recipe(tmp_path / "pools", "data.on_bad_image=drop", "training.steps=2", cache)
    assert run(trained, tmp_path / "trained", quiet=True).results["cost"]["scanned_source_images"] == 0


def test_a_cache_that_cannot_be_written_is_told_and_does_no_harm(problem, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    recipe = small_recipe(problem, "training.epochs=0", f"output.cache={tmp_path / 'file'}")
    assert run(recipe, tmp_path / "run").results["cost"]["scanned_source_images"] == 42
    assert "warning: features cannot be kept" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_what_trains_cannot_go_with_no_training(problem):
    for change, told in (
        ("rates.method=uniform", "learns no rates before training"),
        ("evaluation.baselines=[pooled]", "nothing is; leave them out"),
    ):
        with pytest.raises(RecipeError, match=told):
            small_recipe(problem, "training.epochs=0", change)


def test_the_shipped_recipe_trains_nothing():
    assert not read_recipe(shipped_recipes()["reweight"]).trains


def test_the_cache_command_shows_and_clears(problem, tmp_path):
    reweight(problem, tmp_path / "run", f"output.cache={tmp_path / 'cache'}", "rates.descriptors=[]")
    arguments = ["cache", "--folder", str(tmp_path / "cache"), "--json"]
    shown = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert {kind: of_kind["entries"] for kind, of_kind in shown["kinds"].items()} == {
        "facts of pools": 2,  # what the pool tells of its labels, and how its pictures look
        "features": 1,
    }
    assert (shown["entries"], shown["removed"]) == (3, 0)
    assert shown["bytes"] > 0
    assert json.loads(CliRunner().invoke(app, [*arguments, "--clear"]).stdout)["removed"] == 3
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["entries"] == 0
