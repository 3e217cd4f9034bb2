"""No verb writes over what it reads, or into a pool of the run that it reads from; what is not ours stays."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from homing.cli.app import app
from homing.errors import RecipeError
from homing.features.cache import FeatureCache
from homing.outputs.corpus import Wanted, write_corpus
from homing.recipe.reading import recipe_of_run
from processes import LONG_ENOUGH, called, ended, homing, start
from rated_tables import rate, write_pools


def _invoke(*words):
    result = CliRunner().invoke(app, [*map(str, words), "--quiet"])
    return result.exit_code, str(result.exception or "")


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("role", ["pool.parquet", "mine.parquet"])
def test_rates_do_not_replace_the_table_that_they_are_learned_of(tmp_path, role):
    folder = write_pools(tmp_path / "data")
    before = _digest(folder / role)
    result = rate(folder, "--overwrite", output=role)
    assert isinstance(result.exception, RecipeError)
    assert "is the pool" in str(result.exception)
    assert _digest(folder / role) == before


def test_the_folder_beside_a_file_of_rates_goes_but_for_what_others_put_there(tmp_path):
    folder = write_pools(tmp_path / "data")
    assert rate(folder, output="first.parquet").exit_code == 0
    assert not (folder / ".first.parquet.homing-run").exists()
    beside = folder / ".second.parquet.homing-run"
    beside.mkdir()
    (beside / ".homing").write_text('{"homing": "0.1"}')
    (beside / "notes.txt").write_text("mine")
    assert rate(folder, output="second.parquet").exit_code == 0
    assert [path.name for path in beside.iterdir()] == ["notes.txt"]


def _halted_before(name, ready, *arguments):
    """The command line, which halts when a file is about to get a name."""

    def watch(event, details):
        if event == "os.rename" and os.path.basename(details[1]) == name:
            ready.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(watch)
    homing(*arguments)


def test_two_processes_make_no_file_of_rates_at_once(tmp_path):
    folder, ready = write_pools(tmp_path / "data"), tmp_path / "ready"
    words = ["rate", "--source", folder / "pool.parquet", "--target", folder / "mine.parquet"]
    words += ["--features", "embedding", "--output", tmp_path / "one.parquet", "--quiet"]
    first = start(_halted_before, "one.parquet", ready, *words)
    while not ready.exists():
        assert not ended(first, 0.01)
    second = called(*words, cwd=tmp_path)
    os.kill(first.pid, signal.SIGCONT)
    assert ended(first, LONG_ENOUGH)
    assert (second.returncode, f"process {first.pid}" in second.stderr) == (2, True), second.stderr
    assert first.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one.parquet", "ready"]


def test_a_hidden_folder_of_the_users_own_is_not_replaced_unasked(tmp_path, finished_run):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes((finished_run / "recipe.yaml").read_bytes())
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "notes.txt").write_text("mine")
    code, message = _invoke("rate", recipe, "--output", tmp_path / ".hidden", "rates.method=hierarchical")
    assert code != 0
    assert "already holds files" in message


def test_predictions_replace_no_image_and_go_into_no_pool_of_the_run(finished_run, tmp_path):
    picture = tmp_path / "one.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    before = _digest(picture)
    assert "is the pool" in _invoke("predict", finished_run, picture, "--output", picture, "--overwrite")[1]
    assert _digest(picture) == before
    target = finished_run.parent / "target"
    assert "lies in the pool" in _invoke("predict", finished_run, picture, "--output", target / "metadata.csv")[1]
    assert not (target / "metadata.csv").exists()
    both = tmp_path / "both.parquet"
    code, message = _invoke("predict", finished_run, picture, "--output", both, "--embeddings", both)
    assert code != 0
    assert "a file of its own" in message
    assert not both.exists()


@pytest.mark.parametrize("role", ["target", "test"])
@pytest.mark.parametrize("name", ["metadata.csv", "extra"])
def test_a_corpus_goes_into_no_pool_of_the_run(finished_run, role, name):
    output = finished_run.parent / role / name
    with pytest.raises(RecipeError, match="lies in the pool"):
        write_corpus(
            finished_run, recipe_of_run(finished_run).data.sources, output, Wanted(column_only=name == "extra")
        )
    assert not output.exists()


def test_indices_of_others_are_no_entries_of_the_cache(tmp_path):
    indices = tmp_path / "indices"
    indices.mkdir()
    (indices / "sp500.parquet").write_bytes(b"mine")
    cache = FeatureCache(tmp_path, max_bytes=0)
    assert cache.entries() == []
    assert cache.clear() == []
    assert (indices / "sp500.parquet").read_bytes() == b"mine"


def test_a_run_that_goes_on_keeps_its_recipe_where_its_pool_is_gone(finished_run, tmp_path):
    shutil.copytree(finished_run.parent / "target", tmp_path / "target")
    recipe = recipe_of_run(finished_run)
    data = {**recipe.model_dump(mode="json")["data"]}
    begun = tmp_path / "run"
    begun.mkdir()
    changed = recipe.model_copy(
        update={"data": recipe.data.model_validate({**data, "source": {"path": "/nowhere/at/all"}})}
    )
    from homing.outputs.run_folder import open_run_folder

    open_run_folder(begun, changed, resume=False, overwrite=False)
    assert _invoke("run", begun / "recipe.yaml", "--output", begun, "--resume")[0] != 0
    assert (begun / "recipe.yaml").is_file()


def test_rows_are_found_again_from_another_working_folder(tmp_path, monkeypatch):
    folder = write_pools(tmp_path / "data")
    monkeypatch.chdir(folder)
    words = ["rate", "--source", "pool.parquet", "--target", "mine.parquet", "--features", "embedding"]
    assert _invoke(*words, "--output", "out")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert CliRunner().invoke(app, ["report", "../data/out"]).exit_code == 0
    before = _digest(folder / "pool.parquet")
    code, message = _invoke(
        "score", "../data/out", "../data/mine.parquet", "--output", "../data/pool.parquet", "--overwrite"
    )
    assert code != 0
    assert "is the pool" in message
    assert _digest(folder / "pool.parquet") == before
