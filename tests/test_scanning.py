"""`homing scan`: features ahead of a run, whole or in parts that know nothing of each other."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from homing.cli.app import app
from homing.errors import RecipeError
from homing.flow import run
from homing.progress import Progress
from homing.scanning import scan_recipe
from small_run import draw_problem, small_recipe


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


def scanned(recipe, **options):
    return scan_recipe(recipe, Progress(quiet=True), **options)


def test_a_run_finds_what_parts_have_scanned_and_scans_nothing(problem, tmp_path):
    recipe = small_recipe(problem, f"output.cache={tmp_path / 'cache'}", "training.steps=2")
    parts = [scanned(recipe, part=(number, 3)) for number in (1, 3, 2)]
    assert [report.num_scanned for report in parts] == [24, 24, 24]
    assert {report.num_rows for report in parts} == {72}
    found = run(recipe, tmp_path / "run", quiet=True).results
    assert found["cost"]["scanned_source_images"] == 0
    assert scanned(recipe).num_scanned == 0


def test_parts_give_the_rates_of_a_whole_scan(problem, tmp_path):
    rates = []
    for name, parts in (("whole", [(1, 1)]), ("parts", [(1, 2), (2, 2)])):
        recipe = small_recipe(problem, f"output.cache={tmp_path / name}", "training.epochs=0", "training.steps=null")
        for part in parts:
            scanned(recipe, part=part)
        rates.append(run(recipe, tmp_path / f"run-{name}", quiet=True).results["rates"])
    assert rates[0]["effective_sample_size"] == pytest.approx(rates[1]["effective_sample_size"], rel=1e-4)


def test_a_changed_picture_is_scanned_anew_and_the_others_are_not(tmp_path):
    problem = draw_problem(tmp_path / "pools")
    recipe = small_recipe(problem, f"output.cache={tmp_path / 'cache'}")
    assert scanned(recipe).num_scanned == 72
    other = (problem / "source" / "disk" / "001.png").read_bytes()
    (problem / "source" / "disk" / "000.png").write_bytes(other)  # known bytes
    assert scanned(recipe).num_scanned == 0
    (problem / "source" / "disk" / "000.png").write_bytes(b"no picture")
    report = scanned(recipe)
    assert (report.num_scanned, report.num_bad) == (0, 1)


def test_the_command_says_what_it_did(problem, tmp_path):
    (tmp_path / "recipe.yaml").write_text(small_recipe(problem, f"output.cache={tmp_path / 'cache'}").to_yaml())
    done = CliRunner().invoke(app, ["scan", str(tmp_path / "recipe.yaml"), "--part", "2/2", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["num_scanned"], found["num_rows"], found["part"]) == (36, 72, [2, 2])


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "1/", "a/b", "-1/3", "1/0"])
def test_a_part_that_does_not_exist_is_refused(problem, tmp_path, part):
    (tmp_path / "recipe.yaml").write_text(small_recipe(problem).to_yaml())
    done = CliRunner().invoke(app, ["scan", str(tmp_path / "recipe.yaml"), "--part", part])
    assert isinstance(done.exception, RecipeError)
    assert "write K/N with K from 1 to N" in str(done.exception)


def test_what_keeps_no_features_is_refused(problem):
    with pytest.raises(RecipeError, match=r"output\.cache"):
        scanned(small_recipe(problem, "output.cache=none"))


def test_a_store_that_may_not_hold_the_features_is_refused_before_it_throws_them_away(problem, tmp_path):
    recipe = small_recipe(problem, f"output.cache={tmp_path / 'cache'}", "output.cache_gb=1e-6")
    with pytest.raises(RecipeError, match=r"more than output\.cache_gb \(1e-06\); set it to"):
        scanned(recipe)
    assert run(recipe, tmp_path / "run", quiet=True).results["target"] is not None  # a run keeps them in its own folder
    assert not (tmp_path / "run" / "features").exists()


def test_features_stored_in_half_precision_take_half_the_room_and_give_nearly_the_same_rates(problem, tmp_path):
    sizes, rates = [], []
    for kind in ("float32", "float16"):
        recipe = small_recipe(
            problem,
            f"output.cache={tmp_path / kind}",
            f"output.features={kind}",
            "training.epochs=0",
            "training.steps=null",
        )
        rates.append(run(recipe, tmp_path / f"run-{kind}", quiet=True).results["rates"]["effective_sample_size"])
        sizes.append(sum(path.stat().st_size for path in (tmp_path / kind).rglob("*.npy")))
    assert sizes[1] < 0.6 * sizes[0]
    assert rates[1] == pytest.approx(rates[0], rel=0.05)
