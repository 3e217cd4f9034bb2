"""Input that attacks: pickles where weights, rates or tables are read, tags in YAML, archives that climb out."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch

import homing
from homing.compare import predictions_of
from homing.errors import HomingError, RecipeError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.rates_reader import RatesFile
from homing.outputs.report.page import write_report
from homing.outputs.thumbnails import thumbnails_of
from homing.pools.decoding import ALLOWED_FORMATS, SUFFIXES, format_of
from homing.pools.reading import read_pool
from homing.predict import predict
from homing.progress import Progress
from homing.rates import RateTable
from homing.recipe.data import PoolSpec
from homing.recipe.reading import read_recipe
from homing.validate import validate_data
from packed_pools import write_tar
from small_run import draw_problem, small_recipe


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path):
    """A path that must not come to exist."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"), per_class=4)


def bombs(canary: Path) -> dict[str, bytes]:
    """A bare pickle, and one in torch's own container."""
    packed = io.BytesIO()
    torch.save({"state_dict": Bomb(canary)}, packed)
    return {"bare": pickle.dumps(Bomb(canary)), "packed": packed.getvalue()}


def test_the_bombs_do_go_off(tmp_path):
    for number, kind in enumerate(("bare", "packed")):
        path = tmp_path / f"canary-{number}"
        data = bombs(path)[kind]
        if kind == "bare":
            pickle.loads(data)  # noqa: S301
        else:
            torch.load(io.BytesIO(data), weights_only=False)
        assert path.exists()


@pytest.mark.parametrize("kind", ["bare", "packed"])
@pytest.mark.parametrize(
    "place", ["w.pt", "w.pth", "w.bin", "w.safetensors", "f/pytorch_model.bin", "f/model.safetensors"]
)
def test_weights_are_read_as_tensors_alone(problem, tmp_path, canary, place, kind):
    path = tmp_path / "in" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(bombs(canary)[kind])
    weights = path.parent if place.startswith("f/") else path
    with pytest.raises(HomingError, match="cannot be read as tensors"):
        run(small_recipe(problem, f"model.weights={weights}"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["bare", "packed"])
def test_tables_and_predictions_are_no_pickles(tmp_path, canary, kind):
    data = bombs(canary)[kind]
    for name in ("rates.parquet", "predictions.safetensors", "table.safetensors", "results.json"):
        (tmp_path / name).write_bytes(data)
    for read in (
        lambda: RatesFile(tmp_path / "rates.parquet"),
        lambda: RateTable(3).load(tmp_path / "table.safetensors", ["a", "b", "c"]),
        lambda: write_report(tmp_path, lambda ids: [None] * len(ids)),
        lambda: predictions_of(tmp_path),
    ):
        with pytest.raises(HomingError):
            read()


@pytest.mark.parametrize("name", ["pool.parquet", "data-00000-of-00001.arrow", "dataset_info.json", "state.json"])
@pytest.mark.parametrize("kind", ["bare", "packed"])
def test_pools_are_no_pickles(tmp_path, canary, name, kind):
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "dataset_info.json").write_text("{}")
    (pool / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (pool / "pool.py").write_text(f"import os; os.mkdir({str(canary)!r})")  # a loading script is never run
    (pool / name).write_bytes(bombs(canary)[kind])
    with pytest.raises(HomingError):
        read_pool(PoolSpec(path=str(pool)))


TAGS = {
    "apply": "!!python/object/apply:os.mkdir [{}]",
    "new": "!!python/object/new:os.mkdir [{}]",
    "module": "!!python/module:antigravity",
    "name": "!!python/name:os.mkdir",
    "tuple": "!!python/tuple [{}]",
}


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("key", ["name", "seed", "data", "model"])
def test_tags_in_a_recipe_make_nothing(problem, tmp_path, canary, tag, key):
    text = re.sub(rf"^{key}:.*$", f"{key}: {tag.format(canary)}", small_recipe(problem).to_yaml(), flags=re.MULTILINE)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text(small_recipe(problem).to_yaml())
    if key == "name":  # a text, which an override takes as it is typed
        short = tag.format("/x")
        assert read_recipe(tmp_path / "recipe.yaml", [f"name={short}"]).name == short
        return
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_recipe(tmp_path / "recipe.yaml", [f"{key}={tag.format(canary)}"])


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("place", ["as the pool", "in the pool"])
def test_archives_are_not_unpacked(tmp_path, canary, kind, place):
    """What climbs out of an archive has to be let out of it: nothing here does."""
    pool = tmp_path / "in" / "pool"
    pool.mkdir(parents=True)
    path = pool / f"pool.{kind}"
    if kind == "tar":
        write_tar(path, {"../../canary": b"x"})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../canary", "x")
    with pytest.raises(HomingError):
        read_pool(PoolSpec(path=str(path if place == "as the pool" else pool)))
    assert sorted(p.name for p in pool.iterdir()) == [path.name]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..", "", "a\0b.png"])
@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
def test_a_table_of_files_stays_in_its_folder(tmp_path, name, table):
    pool = tmp_path / "pool"
    pool.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    rows = {
        "metadata.csv": f"file_name,label\n{name},x\n",
        "metadata.jsonl": json.dumps({"file_name": name, "label": "x"}),
    }
    (pool / table).write_text(rows[table])
    with pytest.raises(HomingError):
        read_pool(PoolSpec(path=str(pool)))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{} loop\n"


def test_a_picture_never_starts_a_program(tmp_path, monkeypatch):
    """Pillow has a reader that gives a file to Ghostscript, whatever the file is called."""
    programs, ran = tmp_path / "programs", tmp_path / "ran"
    programs.mkdir()
    for name in ("gs", "gswin64c", "gswin32c", "djpeg", "ppmtogif"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    root = draw_problem(tmp_path / "pools", per_class=4)
    for role in ("source", "target", "test"):
        (root / role / "bar" / "photo.jpg").write_bytes(POSTSCRIPT)
    recipe = small_recipe(root, "data.on_bad_image=drop", "training.steps=2", "evaluation.baselines=[]")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    told = "not a readable image: of no image format (PostScript)"
    assert [told in warning for warning in validate_data(recipe, Progress(quiet=True)).warnings].count(True) == 3
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    rows = io.StringIO()
    bad, _ = predict(folder, [root / "test"], rows, "jsonl", Progress(quiet=True))
    assert [item.reason for item in bad] == [told]
    for name in ("000.png", "001.png"):  # put there after the run, where only report and corpus open them
        (root / "source" / "bar" / name).write_bytes(POSTSCRIPT)
    write_report(folder, thumbnails_of(recipe))
    for form in ("parquet", "folder"):
        write_corpus(folder, recipe.data.sources, tmp_path / form, Wanted(form=form))
    with pytest.raises(HomingError, match="of no image format"):
        format_of(POSTSCRIPT)
    assert not ran.exists()


def test_every_format_that_is_read_is_read_by_a_library_alone():
    assert not {"EPS", "PDF", "WMF", "GRIB", "BUFR", "HDF5", "MPEG"} & set(ALLOWED_FORMATS)
    assert {"JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"} <= set(ALLOWED_FORMATS)
    assert {".jpg", ".mpo", ".png", ".tif"} <= SUFFIXES
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ""} & SUFFIXES


def test_no_other_place_opens_pictures():
    """`formats.open_allowed` is the one place: what opens a picture otherwise may start a program."""
    sources = Path(homing.__file__).parent
    places = [
        path.relative_to(sources).as_posix() for path in sources.rglob("*.py") if "Image.open(" in path.read_text()
    ]
    assert places == ["pools/formats.py"]
