"""A recipe may leave the report out; `homing report` makes it later."""

from __future__ import annotations

import pytest

from homing.flow import run
from homing.outputs.table import summary
from processes import called
from small_run import draw_problem, small_recipe

FAST = ("training.steps=2", "model.trainable=head", "rates.method=uniform", "output.cache=none")


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """A run without its report, beside its pools."""
    folder = draw_problem(tmp_path_factory.mktemp("without"))
    recipe = small_recipe(folder, *FAST, "evaluation.baselines=[]", "output.report=false")
    return run(recipe, folder / "run", quiet=True)


def test_there_is_none_and_what_makes_it_is_told_and_does(without):
    report = without.folder / "report.html"
    assert not report.exists()
    assert f"report: homing report {without.folder}" in summary(without.folder, without.results)
    done = called("report", without.folder, cwd=without.folder.parent)
    assert (done.returncode, done.stdout.strip()) == (0, str(report))
    assert f"report: {report}" in summary(without.folder, without.results)
    report.unlink()


def test_a_finished_run_gets_it_when_it_is_resumed_and_it_is_wanted(without):
    pools, report = without.folder.parent, without.folder / "report.html"
    for wanted in ("false", "true"):
        recipe = small_recipe(pools, *FAST, "evaluation.baselines=[]", f"output.report={wanted}")
        run(recipe, without.folder, resume=True, quiet=True)
        assert report.exists() == (wanted == "true")
    report.unlink()


def test_one_of_fewer_methods_does_not_stay(without):
    report = without.folder / "report.html"
    called("report", without.folder, cwd=without.folder.parent)
    assert report.exists()
    more = small_recipe(without.folder.parent, *FAST, "evaluation.baselines=[pooled]", "output.report=false")
    assert "pooled" in run(more, without.folder, resume=True, quiet=True).results["baselines"]
    assert not report.exists()
