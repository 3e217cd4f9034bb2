"""What is a part of a run, and what only looks like one: others' files are neither taken for ours nor removed."""

import json
import shutil

import pytest

from homing.errors import RecipeError
from homing.features.cache import FeatureCache
from homing.outputs.ownership import check_free, is_empty, is_ours
from homing.outputs.run_folder import new_folder, open_run_folder
from homing.recipe.reading import parse_recipe
from homing.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from processes import called

RECIPE = parse_recipe("data: {source: {path: /a}, target: {path: /b}}\ntraining: {epochs: 1}\n")
NOTHING = Checkpoint({}, {})


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_features_of_somebody_else_make_no_empty_folder(tmp_path, kind):
    elsewhere, features = tmp_path / "elsewhere", tmp_path / "run" / "features"
    (elsewhere / "audio").mkdir(parents=True)
    (elsewhere / "audio" / "one.npy").write_bytes(b"mine")
    features.parent.mkdir()
    if kind == "file":
        features.write_bytes(b"mine")
    elif kind == "link":
        features.symlink_to(elsewhere)
    else:
        elsewhere.rename(features)
    assert not is_empty(tmp_path / "run")
    for how in ({}, {"overwrite": True}):
        with pytest.raises(RecipeError, match="holds files"):
            open_run_folder(tmp_path / "run", RECIPE, **{"resume": False, "overwrite": False} | how)


def test_features_that_a_killed_run_left_are_nothing(tmp_path):
    cache = FeatureCache(tmp_path / "features", 0)
    cache.open({"what": "test"}, (4,)).close()
    (tmp_path / "features" / "killed-before-its-mark").mkdir()
    assert is_empty(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_a_file_where_a_folder_of_a_run_belongs_is_told(tmp_path):
    open_run_folder(tmp_path, RECIPE, resume=False, overwrite=False)
    (tmp_path / "features").write_bytes(b"mine")
    with pytest.raises(RecipeError, match="features: is a file, no folder of homing"):
        check_free(tmp_path)


def test_checkpoints_of_another_program_make_no_folder_a_run(tmp_path):
    manifest = tmp_path / "checkpoints" / "step-000100" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"shards": ["a.bin"], "format": "theirs"}))
    assert not is_ours(tmp_path)
    with pytest.raises(RecipeError, match="no run of homing"):
        open_run_folder(tmp_path, RECIPE, resume=False, overwrite=True)
    assert names_in(tmp_path) == ["checkpoints/step-000100/manifest.json"]
    save_checkpoint(tmp_path / "checkpoints", 200, NOTHING, keep=2)
    assert is_ours(tmp_path)


def test_what_others_laid_into_a_checkpoint_stays_where_it_is(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    for step in (1, 2, 2, 3):  # 2: anew, over what is there
        path = save_checkpoint(checkpoints, step, NOTHING, keep=1)
        (path / "notes.json").write_text(f"mine of {step}")
    left = [f"step-00000{step}/notes.json" for step in (1, 2, 3)]
    assert names_in(checkpoints) == sorted([*left, "step-000003/manifest.json", "step-000003/state.json"])
    (checkpoints / "step-000009").mkdir()
    (checkpoints / "step-000009" / "notes.txt").touch()  # as an overwritten run leaves it
    assert newest_checkpoint(checkpoints).name == "step-000003"
    open_run_folder(tmp_path, RECIPE, resume=False, overwrite=True)
    assert names_in(checkpoints) == [*left, "step-000009/notes.txt"]


def test_checkpoints_behind_a_link_are_those_of_the_run(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    open_run_folder(run, RECIPE, resume=False, overwrite=False)
    save_checkpoint(elsewhere, 60, NOTHING, keep=2)
    (elsewhere / "step-000060" / "notes.json").write_text("mine")
    (run / "checkpoints").symlink_to(elsewhere)
    open_run_folder(run, RECIPE, resume=False, overwrite=True)
    assert names_in(elsewhere) == ["step-000060/notes.json"]
    assert (run / "checkpoints").is_symlink()


def test_a_file_elsewhere_that_cannot_be_read_is_not_told_as_of_the_output(tmp_path):
    with pytest.raises(FileNotFoundError) as told, new_folder(tmp_path / "out", [], "digest", overwrite=False):
        (tmp_path / "gone").read_bytes()
    assert told.value.filename == str(tmp_path / "gone")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".homing"]


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("score RUN PHOTOS --overwrite --output", "rates.parquet"),
        ("predict RUN PHOTOS --overwrite --output", "labels_wanted.csv"),
        ("predict RUN PHOTOS --output new.csv --embeddings", "model/new.npy"),
        ("rate RUN/recipe.yaml --overwrite --output", "rates.parquet"),
        ("corpus RUN --output", "unlabelled.parquet"),
        ("corpus RUN --column-only --output", "models/mine"),
        ("export RUN --output", "models/pooled/deep/onnx"),
        ("run RUN/recipe.yaml --output", "models/next"),
    ],
)
def test_no_verb_writes_where_a_run_keeps_its_own_files(finished_run, tmp_path, verb, name):
    run_folder = tmp_path / "run"
    shutil.copytree(finished_run, run_folder)
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    places = {"RUN": str(run_folder), "PHOTOS": str(finished_run.parent / "test")}
    command = [places.get(word, word.replace("RUN", str(run_folder))) for word in verb.split()]
    done = called(*command, run_folder / name, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{run_folder / name}: belongs to the run in {run_folder}" in " ".join(done.stderr.split())
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before
