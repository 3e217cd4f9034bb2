"""What a run cannot do with its pools it says before it trains or replaces anything, and `validate` says it, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from homing.errors import DataError, HomingError, RecipeError
from homing.flow import run
from homing.progress import Progress
from homing.validate import validate_data
from set_pools import draw_set_problem, set_recipe
from small_run import draw_folder, draw_problem, small_recipe

FEW = ("training.steps=2", "rates.method=uniform", "training.target_weight=2")


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    return run(small_recipe(problem, *FEW), tmp_path_factory.mktemp("runs") / "run", quiet=True).folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REFUSED = {
    "more folds for rates than images": (
        ("rates.folds=20",),
        DataError,
        r"12 labelled images .* the 20 folds of rates",
    ),
    "more folds for the evaluation": (
        (*FEW, "data.test=null", "evaluation.folds=13"),
        DataError,
        r"the 13 folds of evaluation\.folds; .* lower evaluation\.folds to at most 12",
    ),
    "more folds for the choice": (
        (*FEW, "model.keep=best", "evaluation.folds=13"),
        DataError,
        r"the 13 folds of evaluation\.folds",
    ),
    "a truth that is none": (
        ("data.truth={matches_column: label}", "rates.method=oracle"),
        DataError,
        "label",
    ),
    "an endless epoch": (("rates.method=uniform", "training.target_weight=1e12"), RecipeError, "an epoch would take"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_finished_run_survives_one_that_cannot_be_and_validate_says_why(problem, finished, tmp_path, name):
    changes, kind, message = REFUSED[name]
    shutil.copytree(finished, tmp_path / "run")
    before, recipe = contents(tmp_path / "run"), small_recipe(problem, *changes)
    with pytest.raises(kind, match=message):
        run(recipe, tmp_path / "run", overwrite=True, quiet=True)
    assert contents(tmp_path / "run") == before
    with pytest.raises(kind, match=message):
        run(recipe, tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()
    findings = validate_data(recipe, Progress(quiet=True))
    assert len(findings.errors if kind is DataError else findings.refused) >= 1


@pytest.mark.parametrize(("images", "folds"), [(2, 2), (3, 2)])
def test_a_fold_that_would_leave_a_single_image_is_told_before_the_training(problem, tmp_path, images, folds):
    draw_folder(tmp_path / "target", 1, seed=5, share_dark=1)
    if images == 2:
        shutil.rmtree(tmp_path / "target" / "ring")
    small = (f"data.target.path={tmp_path / 'target'}", "data.test=null", f"evaluation.folds={folds}")
    recipe = small_recipe(problem, *small)
    with pytest.raises(DataError, match=f"of {images} labelled images a fold .* a single one to learn rates from"):
        run(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    judged = run(small_recipe(problem, *small, *FEW), tmp_path / "run", quiet=True)  # nothing is learned of one there
    assert judged.results["target"]["num_test"] == images


def test_source_then_target_ends_on_the_target_whatever_a_target_image_weighs(problem, tmp_path):
    recipe = small_recipe(problem, "training.steps=8", "rates.method=sequential", "training.target_weight=0")
    result = run(recipe, tmp_path / "run", quiet=True)
    rows = list(map(json.loads, (result.folder / "metrics.jsonl").read_text().splitlines()))
    assert rows[-1]["target_loss"] is not None
    assert pq.read_table(result.folder / "rates.parquet")["visits"].to_numpy().sum() == 4 * 8  # half of the steps


def test_nothing_can_be_chosen_by_images_of_no_class(tmp_path):
    problem = draw_set_problem(tmp_path)
    table = problem / "target" / "metadata.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *(f"{row.split(',')[0]},0,0,0" for row in rows)]) + "\n")
    recipe = set_recipe(problem, "model.keep=best", "evaluation.baselines=[pooled]")
    with pytest.raises(DataError, match="no image is of any class"):
        run(recipe, tmp_path / "run", quiet=True)


@pytest.mark.parametrize("role", ["source", "second"])
def test_one_picture_that_cannot_be_read_leaves_the_runs_of_all_targets_as_they_were(problem, tmp_path, role):
    for name in ("source", "target", "test"):
        shutil.copytree(problem / name, tmp_path / name)
    shutil.copytree(problem / "target", tmp_path / "second")
    targets = f"data.target={{first: {{path: {tmp_path / 'target'}}}, second: {{path: {tmp_path / 'second'}}}}}"
    recipe = small_recipe(tmp_path, *FEW, targets, "data.test=null", "evaluation.folds=2", "output.cache=none")
    run(recipe, tmp_path / "run", quiet=True)
    before = contents(tmp_path / "run")
    assert {"results.json", "first/results.json", "second/results.json"} <= before.keys()
    next((tmp_path / role).rglob("*.png")).write_bytes(b"text")
    with pytest.raises(
        HomingError, match=rf"target (first|second): .*(\n.*)*{'' if role == 'source' else 'target'} .*png"
    ):
        run(recipe, tmp_path / "run", overwrite=True, quiet=True)
    after = contents(tmp_path / "run")
    assert {name: after.get(name) for name in before} == before
