"""Several targets of one source: one scan, a folder for each, and who shares data."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from homing.cli.app import app
from homing.cli.runs import print_results
from homing.errors import CheckpointError, DataError, RecipeError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.ownership import marked, note
from homing.outputs.run_folder import open_run_folder
from homing.outputs.shared_data import write_shared
from homing.progress import Progress
from homing.recipe.reading import parse_recipe, read_recipe
from homing.validate import validate_data
from small_run import draw_folder, draw_problem


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    folder = draw_problem(tmp_path_factory.mktemp("pools"), per_class=40)
    draw_folder(folder / "light", 4, seed=7, share_dark=0)
    draw_folder(folder / "dark", 5, seed=8, share_dark=1)
    return folder


def recipe_over(pools, names=("target", "dark", "light"), **changes):
    tree = {
        "name": "several",
        "data": {
            "source": {"path": str(pools / "source")},
            "target": {name: {"path": str(pools / name)} for name in names},
        },
        "model": {"backbone": "tf_efficientnet_lite0", "weights": "bundled", "image_size": 48},
        "rates": {"folds": 2},
        "training": {"epochs": 0, "batch_size": 8, "workers": 0},
        "output": {"cache": "none"},
    }
    for key, value in changes.items():
        tree[key] = tree[key] | value
    return parse_recipe(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture(scope="module")
def finished(pools, tmp_path_factory):
    return run(recipe_over(pools), tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_the_source_is_scanned_once_and_each_target_gets_its_rates(pools, finished):
    rows = finished.results["targets"]
    assert [row["scanned_source_images"] for row in rows.values()] == [120, 0, 0]
    assert [row["num_target"] for row in rows.values()] == [12, 15, 12]
    alone = run(recipe_over(pools).by_target()["light"], finished.folder.parent / "alone", quiet=True)
    folders = (finished.folder / "light", alone.folder)
    tables = [pq.read_table(folder / "rates.parquet").to_pandas() for folder in folders]
    # features come from the store, and were scanned in batches of other pictures: the same but for rounding
    pandas.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-4, atol=1e-4)
    assert read_recipe(finished.folder / "light" / "recipe.yaml").data.target_pool.path == str(pools / "light")


def test_customers_of_one_kind_share_more_data_than_others(finished):
    with (finished.folder / "targets.csv").open(newline="") as file:
        pairs = {(row["a"], row["b"]): float(row["common_mass"]) for row in csv.DictReader(file)}
    assert set(pairs) == {("target", "dark"), ("target", "light"), ("dark", "light")}
    assert pairs["target", "dark"] > max(pairs["target", "light"], pairs["dark", "light"])
    assert json.loads((finished.folder / "results.json").read_text()) == finished.results


def test_the_table_of_shared_data_against_counts_by_hand(tmp_path):
    rates = {"a": [2.0, 2.0, 0.0, 0.0], "b": [0.0, 2.0, 2.0, 0.0], "c": [1.0, 1.0, 1.0, 1.0]}
    import pyarrow as pa

    for name, values in rates.items():
        (tmp_path / name).mkdir()
        columns = {"sample_id": list("wxyz"), "source": ["s"] * 4, "label": ["l"] * 4, "rate": np.float32(values)}
        pq.write_table(pa.table(columns), tmp_path / name / "rates.parquet")
    one = {
        "target": None,
        "data": {"target": {"num_samples": 1}},
        "rates": {"effective_sample_size": 2.0, "phi": {}},
        "cost": {"scanned_source_images": 0},
        "warnings": [],
    }
    pairs = {(row["a"], row["b"]): row for row in write_shared(tmp_path, dict.fromkeys(rates, one))["pairs"]}
    assert pairs["a", "b"]["common_mass"] == pytest.approx(0.5)
    assert pairs["a", "c"]["common_mass"] == pytest.approx(0.5)
    assert pairs["a", "b"]["rank_correlation"] == pytest.approx(0)
    assert pairs["a", "c"]["rank_correlation"] is None


def test_targets_may_be_trained_for_and_tested_each(pools, tmp_path):
    data = {"test": {"dark": {"path": str(pools / "test")}}, "target": {"dark": {"path": str(pools / "dark")}}}
    result = run(recipe_over(pools, data=data, training={"epochs": 0.1}), tmp_path / "run", quiet=True)
    assert result.results["targets"]["dark"]["accuracy"] is not None
    assert (result.folder / "dark" / "model").is_dir()


def test_bad_data_of_one_target_names_it(pools, tmp_path):
    (tmp_path / "odd" / "square").mkdir(parents=True)
    (tmp_path / "odd" / "square" / "0.png").write_bytes((pools / "target" / "bar" / "000.png").read_bytes())
    changes = {"target": {"odd": {"path": str(tmp_path / "odd")}, "fine": {"path": str(pools / "dark")}}}
    recipe = recipe_over(pools, data=changes)
    with pytest.raises(DataError, match="target odd: target: none of the target's classes \\('square'\\)"):
        run(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    findings = validate_data(recipe, Progress(quiet=True))
    assert [text for text in findings.errors if text.startswith("odd: ")]
    assert not [text for text in findings.errors if text.startswith("fine: ")]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"test": {"path": "x"}}, "data.test is one pool, data.target names several"),
        ({"test": {"nobody": {"path": "x"}}}, "there is no target of that name; there are target, dark, light"),
        ({"target": {"a/b": {"path": "x"}}}, "data.target.a/b"),
        ({"target": {"one": {"pth": "x"}}}, "unknown key, did you mean path"),
        ({"target": {"path": "x"}, "test": {"one": {"path": "x"}}}, "data.test names several pools"),
    ],
)
def test_names_that_do_not_fit_are_told(pools, data, told):
    with pytest.raises(RecipeError, match=told):
        recipe_over(pools, data=data)


def test_a_corpus_is_of_one_target(finished, pools, tmp_path):
    sources = recipe_over(pools).data.sources
    with pytest.raises(DataError, match="give one target's folder in it: dark, light, target"):
        write_corpus(finished.folder, sources, tmp_path / "corpus", Wanted(column_only=True))
    summary = write_corpus(finished.folder / "dark", sources, tmp_path / "corpus", Wanted(column_only=True))
    assert summary["num_rows"] == 120


def test_a_run_goes_on_where_it_stopped(finished, pools, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    before = (folder / "dark" / "rates.parquet").stat().st_mtime_ns
    for name in ("results.json", "light/results.json", "light/rates.parquet"):
        (folder / name).unlink()
    again = run(recipe_over(pools), folder, resume=True, quiet=True)
    for ours, theirs in zip(again.results["pairs"], finished.results["pairs"], strict=True):
        assert (ours["a"], ours["b"]) == (theirs["a"], theirs["b"])
        for figure in ("rank_correlation", "common_mass"):  # what is scanned again is so in another batch
            assert ours[figure] == pytest.approx(theirs[figure], rel=1e-4)
    assert (folder / "dark" / "rates.parquet").stat().st_mtime_ns == before
    with pytest.raises(RecipeError, match="already holds files"):
        run(recipe_over(pools), folder, quiet=True)
    seen = marked(folder / "light")["pictures"]
    note(folder / "light", pictures={**seen, "source": "another picture stood there"})
    with pytest.raises(CheckpointError, match=r"target, .*light: the source changed between these runs"):
        run(recipe_over(pools), folder, resume=True, quiet=True)
    print_results(folder, again.results, as_json=True)
    assert set(json.loads(capsys.readouterr().out)["targets"]) == {"target", "dark", "light"}
    print_results(folder, again.results, as_json=False)
    shown = capsys.readouterr()
    assert "who shares data" in shown.out
    assert shown.err == ""


def test_bad_data_and_a_wrong_recipe_leave_the_folder_as_it_was(pools, tmp_path):
    folder, sound = tmp_path / "runs", recipe_over(pools)
    open_run_folder(folder, sound, resume=False, overwrite=False)
    (folder / "results.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    gone = recipe_over(pools, data={"source": {"path": str(pools / "nowhere")}})
    with pytest.raises(DataError, match="target target: "):
        run(gone, folder, overwrite=True, quiet=True)
    assert {name: (folder / name).read_bytes() for name in before} == before
    with pytest.raises(RecipeError, match="resnet_typo"):
        run(recipe_over(pools, model={"backbone": "resnet_typo"}), tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(RecipeError, match="goes with --resume"):
        run(sound, tmp_path / "new", allow_change=True, quiet=True)


def test_rates_of_several_targets_are_no_single_file(pools, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe_over(pools).to_yaml())
    result = CliRunner().invoke(app, ["rate", f"{tmp_path}/recipe.yaml", "--output", f"{tmp_path}/rates.parquet"])
    assert isinstance(result.exception, RecipeError)
    assert "data.target names target, dark, light" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
