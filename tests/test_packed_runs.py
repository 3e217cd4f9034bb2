"""Whole runs on pools that are packed, or lie elsewhere."""

import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from homing import cli
from homing.errors import RecipeError
from homing.flow import run
from homing.outputs.pool_paths import check_output
from packed_pools import write_tar, zip_folder
from s3_server import upload
from small_run import draw_problem, small_recipe


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    """A drawn problem: its source in two shards, its target in a zip file."""
    folder = draw_problem(tmp_path_factory.mktemp("packed"), per_class=6)
    files = sorted((folder / "source").rglob("*.png"))
    for number in range(2):
        members = {}
        for place, file in enumerate(files[number::2]):
            members[f"{number}-{place:03d}.png"] = file.read_bytes()
            members[f"{number}-{place:03d}.cls"] = file.parent.name.encode()
        write_tar(folder / "shards" / f"{number}.tar", members)
    zip_folder(folder / "target", folder / "target.zip", top="photos/")
    return folder


def rated(folder, output, *overrides):
    recipe = small_recipe(folder, "training.epochs=0", "data.test=null", *overrides)
    return run(recipe, output, quiet=True).folder


def rates_of(folder: Path) -> list[tuple[str, float]]:
    table = parquet.read_table(folder / "rates.parquet", columns=["sample_id", "rate"])
    return list(zip(*table.to_pydict().values(), strict=True))


def test_rates_are_those_of_the_same_pictures_from_shards_here_or_in_a_bucket(problem, bucket, tmp_path):
    target = f"data.target.path={problem}/target.zip"
    here = rated(problem, tmp_path / "here", f"data.source.path={problem}/shards/{{0..1}}.tar", target)
    url = upload(problem / "shards", f"{bucket}/shards")
    there = rated(problem, tmp_path / "there", f"data.source.path={url}", target)
    assert rates_of(here) == rates_of(there)
    assert len(rates_of(here)) == 18
    # and a corpus out of the bucket has the pictures in it
    options = ["--output", str(tmp_path / "corpus"), "--keep", "0.5", "--format", "folder"]
    call(["homing", "corpus", str(there), *options])
    copied = {path.read_bytes() for path in (tmp_path / "corpus").rglob("*.png")}
    assert len(copied) == 9
    assert copied <= {path.read_bytes() for path in (problem / "source").rglob("*.png")}


def call(words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code


def test_validate_says_what_packed_pools_were_read_as(problem, tmp_path, capsys):
    recipe = small_recipe(problem, "training.epochs=0", "data.test=null", f"data.source.path={problem}/shards")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    target = f"data.target.path={problem}/target.zip"
    call(["homing", "validate", str(tmp_path / "recipe.yaml"), target, "--json", "--output", str(tmp_path / "out")])
    pools = json.loads(capsys.readouterr().out)["pools"]
    assert [pools[role]["read_as"][0]["kind"] for role in ("source", "target")] == [
        "tar shards (2)",
        "zip of an image folder",
    ]


def test_outputs_keep_clear_of_shards_that_a_pattern_names(problem):
    with pytest.raises(RecipeError, match="holds the pool"):
        check_output(problem / "shards", [f"{problem}/shards/{{0..1}}.tar"])
    check_output(problem / "out", [f"{problem}/shards/{{0..1}}.tar", "s3://bucket/pool", "a{b"])
