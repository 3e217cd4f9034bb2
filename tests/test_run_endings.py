"""How a command ends: nobody's files are drawn over, a folder of the user's own stays, what is lost is told."""

from __future__ import annotations

import os

import pytest

from homing.outputs.lock import folder_lock
from homing.outputs.run_folder import open_run_folder
from homing.recipe.reading import read_recipe, shipped_recipes
from processes import LONG_ENOUGH, called, ended, homing, start


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
    assert [path for path in (output / "data").rglob("*.png")] == [picture]
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
