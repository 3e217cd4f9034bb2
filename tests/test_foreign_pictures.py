"""A picture that is a program, in every verb that opens pictures: Pillow alone would hand it to Ghostscript."""

from __future__ import annotations

import io
import json
import os

import pytest
from PIL import EpsImagePlugin, Image

from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.report.page import write_report
from homing.outputs.thumbnails import thumbnails_of
from homing.predict import predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe
from homing.validate import validate_data
from small_run import draw_problem, small_recipe

QUIET = Progress(quiet=True)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n%%EOF\n"


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A file that comes to exist as soon as anybody starts `gs`."""
    (tmp_path / "bin").mkdir()
    program, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it looks once, and remembers
    return ran


def test_pillow_alone_does_start_a_program(ran):
    with pytest.raises((OSError, SyntaxError)):
        Image.open(io.BytesIO(POSTSCRIPT)).load()
    assert ran.exists()


def test_no_verb_starts_a_program_for_a_picture(ran, tmp_path):
    pools = draw_problem(tmp_path / "pools")
    for role in ("source", "target", "test"):
        (pools / role / "bar" / "photo.jpg").write_bytes(POSTSCRIPT)
    recipe = small_recipe(pools, "data.on_bad_image=drop", "training.steps=4")
    validate_data(recipe, QUIET)
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    results = json.loads((folder / "results.json").read_text())
    assert "photo.jpg" in json.dumps(results)
    write_report(folder, thumbnails_of(parse_recipe(recipe.to_yaml(), [])))
    bad, _ = predict(folder, [pools / "source"], io.StringIO(), "jsonl", QUIET)
    assert [item.reason.startswith("not a readable image: of no image format") for item in bad] == [True]
    sources = [PoolSpec(path=str(pools / "source"))]
    write_corpus(folder, sources, tmp_path / "corpus", Wanted(form="parquet"))
    (folder / "report.html").unlink()
    write_report(folder, lambda ids: [POSTSCRIPT] * len(ids))
    assert not ran.exists()
