"""How a command ends: nobody's files are drawn over, a folder of the user's own stays, what is lost is told."""

from __future__ import annotations

import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from homing.errors import DataError, DivergedError
from homing.flow import run
from homing.outputs.lock import folder_lock
from homing.outputs.run_folder import open_run_folder
from homing.recipe.reading import read_recipe, recipe_of_run, shipped_recipes
from processes import LONG_ENOUGH, called, ended, homing, start
from small_run import small_recipe


def test_the_quickstart_draws_nothing_into_a_folder_where_another_process_is_at_work(tmp_path):
    output = tmp_path / "run"
    paths = [f"data.{role}.path={output / 'data' / role}" for role in ("source", "target", "test")]
    recipe = read_recipe(shipped_recipes()["quickstart"], ["seed=0", *paths])
    open_run_folder(output, recipe, resume=False, overwrite=False)
    picture = output / "data" / "source" / "0" / "00000.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"of the run that is under way")
    with folder_lock() as lock:
        lock.take(output)
        done = called("quickstart", "--output", output, "--resume", "--quiet", cwd=tmp_path)
    assert (done.returncode, "is at work in it" in done.stderr) == (2, True), done.stderr
    assert list((output / "data").rglob("*.png")) == [picture]
    assert picture.read_bytes() == b"of the run that is under way"


def _with_stdout(kind: str, *arguments: object) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2({"full": os.open("/dev/full", os.O_WRONLY), "left": writer}[kind], 1)
    homing(*arguments)


@pytest.mark.parametrize(("kind", "code", "told"), [("full", 1, "homing: standard output: "), ("left", 141, "")])
def test_what_an_error_leaves_unprinted_is_lost_with_a_sentence(finished_run, tmp_path, kind, code, told):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    log = tmp_path / "log"
    process = start(_with_stdout, kind, "predict", finished_run, broken, "--quiet", stderr=log)
    assert ended(process, LONG_ENOUGH)
    assert (process.exitcode, "Traceback" in log.read_text()) == (code, False), log.read_text()
    assert log.read_text().splitlines()[-1].startswith(told)
    assert "Exception ignored" not in log.read_text()


@pytest.fixture(scope="module")
def overflowing(finished_run, tmp_path_factory):
    """Weights of the finished run by which every feature is infinite."""
    weights = load_file(finished_run / "model" / "model.safetensors")
    first = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    weights[first].fill_(1e38)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(weights, path)
    return path


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_run_whose_features_are_not_finite_can_be_begun_again(finished_run, overflowing, tmp_path, how):
    begun = small_recipe(finished_run.parent, "training.steps=2", "rates.method=uniform")
    bad = small_recipe(finished_run.parent, f"model.weights={overflowing}", "output.cache=none")
    with pytest.raises(DivergedError, match="are not finite"):
        run(bad, tmp_path / "run", quiet=True)
    assert "features" in (tmp_path / "run" / "divergence.json").read_text()
    open_run_folder(tmp_path / "run", begun, **{"resume": False, "overwrite": False} | how)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".homing", "features", "recipe.yaml"]


def test_features_that_are_not_finite_leave_the_run_that_they_were_to_replace_as_it_is(
    finished_run, overflowing, tmp_path
):
    shutil.copytree(finished_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    recipe = small_recipe(finished_run.parent, f"model.weights={overflowing}", f"output.cache={tmp_path / 'cache'}")
    for _ in range(2):  # scanned; then kept
        with pytest.raises(DivergedError, match="are not finite"):
            run(recipe, tmp_path / "run", overwrite=True, quiet=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_finished_run_loses_what_a_kill_after_its_mark_left(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "divergence.json").write_text("{}")
    run(recipe_of_run(finished_run), tmp_path / "run", resume=True, quiet=True)
    assert not (tmp_path / "run" / "divergence.json").exists()


@pytest.mark.parametrize("of", ["one", "several"])
def test_an_empty_folder_of_the_users_own_outlives_a_run_whose_source_is_missing(finished_run, tmp_path, of):
    pools = finished_run.parent
    target = f"data.target={{acme: {{path: {pools / 'target'}}}}}"
    more = [target, f"data.test={{acme: {{path: {pools / 'test'}}}}}"] if of == "several" else []
    recipe = small_recipe(pools, f"data.source.path={tmp_path / 'gone'}", *more)
    (tmp_path / "mine").mkdir()
    for folder in ("mine", "made"):
        with pytest.raises(DataError, match="gone"):
            run(recipe, tmp_path / folder, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []
