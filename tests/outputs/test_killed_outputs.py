"""Killed where an output is about to take its name: it is not there, and the next command leaves nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys

import pytest

from homing.flow import run
from homing.outputs import finished
from homing.outputs.artefact import is_unfinished, write_whole
from homing.outputs.lock import folder_lock
from processes import homing, start
from small_run import draw_problem, small_recipe


def _killed_before(name, *arguments):
    """The command line, which dies when a file or folder is about to get a name."""

    def watch(event, details):
        if event == "os.rename" and os.path.basename(details[1]) == name:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    homing(*arguments)


def killed_before(name, *arguments):
    process = start(_killed_before, name, *arguments)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def done(tmp_path, *arguments):
    process = start(homing, *arguments, stderr=tmp_path / "stderr")
    process.join()
    return process.exitcode, (tmp_path / "stderr").read_text()


COMMANDS = {
    "corpus": ("--format", "folder", "--output"),
    "score": ("--output",),
    "export": ("--output",),
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_what_a_kill_leaves_of_a_command_is_removed_by_the_next_one(finished_run, tmp_path, verb):
    pool = [finished_run.parent / "test"] if verb == "score" else []
    arguments = (verb, finished_run, *pool, *COMMANDS[verb], tmp_path / "out")
    killed_before("out", *arguments)
    (left,) = tmp_path.iterdir()
    assert is_unfinished(left)
    assert done(tmp_path.parent, *arguments)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    problem = draw_problem(tmp_path_factory.mktemp("pools"))
    recipe = small_recipe(problem, "training.steps=2", "output.cache=none")
    return run(recipe, tmp_path_factory.mktemp("runs") / "run", quiet=True).folder


@pytest.mark.parametrize("name", ["rates.parquet", "model", "map.parquet", "report.html", "results.json"])
def test_a_run_that_was_killed_before_its_mark_is_not_complete_and_ends_with_all_there_is(whole, tmp_path, name):
    recipe = whole / "recipe.yaml"
    killed_before(name, "run", recipe, "--output", tmp_path / "run", "--quiet")
    assert not (tmp_path / "run" / name).exists()
    assert not finished.is_complete(tmp_path / "run")
    code, told = done(tmp_path, "run", recipe, "--output", tmp_path / "run", "--resume", "--quiet")
    assert code == 0, told
    names = [{path.name for path in folder.iterdir()} for folder in (whole, tmp_path / "run")]
    assert names[0] == names[1]
    assert (whole / "rates.parquet").read_bytes() == (tmp_path / "run" / "rates.parquet").read_bytes()


def test_a_report_that_was_lost_is_written_when_the_run_is_resumed(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    before = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    code, told = done(tmp_path, "run", whole / "recipe.yaml", "--output", tmp_path / "run", "--resume")
    assert (code, "is complete" in told) == (0, True)
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == before


def test_a_report_that_is_there_is_not_told_as_not_written(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    told = [*results["warnings"], "report.html could not be written (No space left on device); `homing report` …"]
    for command in (("report", folder), ("run", whole / "recipe.yaml", "--output", folder, "--resume", "--quiet")):
        (folder / "report.html").unlink()
        (folder / "results.json").write_text(json.dumps({**results, "warnings": told}))
        assert done(tmp_path, *command)[0] == 0
        assert "could not be written" not in (folder / "report.html").read_text()
        assert json.loads((folder / "results.json").read_text()) == results


def test_a_report_changes_no_results_of_a_run_where_another_process_is_at_work(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    told = json.dumps({**results, "warnings": ["report.html could not be written (No space left on device)"]})
    (folder / "results.json").write_text(told)
    (folder / "report.html").unlink()
    with folder_lock() as lock:
        lock.take(folder)
        assert done(tmp_path, "report", folder)[0] == 0
    assert (folder / "report.html").exists()
    assert (folder / "results.json").read_text() == told


def test_what_a_run_is_complete_without_costs_a_warning_where_it_fails(tmp_path):
    (tmp_path / "report.html").mkdir()
    (warning,) = finished.unless_it_fails("report.html", lambda: write_whole(tmp_path / "report.html", b""))
    assert warning.startswith("report.html could not be written (")
    assert "`homing report` on the run folder tries again" in warning
    assert finished.unless_it_fails("map.parquet", lambda: None) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"targets": {"a": {}, "b": {}}}, "run/a: holds no recipe.yaml"),
        (None, "not the folder of a finished run"),
    ],
)
def test_a_report_says_what_it_lacks(whole, tmp_path, content, told):
    (tmp_path / "run").mkdir()
    shutil.copy(whole / "recipe.yaml", tmp_path / "run")
    if content is not None:
        (tmp_path / "run" / "results.json").write_text(json.dumps(content))
    code, said = done(tmp_path, "report", tmp_path / "run")
    assert code == 3
    assert told in said
    assert len(said.strip().splitlines()) == 1


def test_a_run_that_stopped_after_its_rates_has_its_report_when_asked(whole, tmp_path):
    recipe = whole / "recipe.yaml"
    code, told = done(tmp_path, "run", recipe, "training.epochs=0", "training.steps=null", "--output", tmp_path / "run")
    assert code == 0, told
    assert not (tmp_path / "run" / "report.html").exists()
    assert done(tmp_path, "report", tmp_path / "run")[0] == 0
    assert "Rates only" in (tmp_path / "run" / "report.html").read_text()
