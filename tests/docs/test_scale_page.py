"""The commands of docs/scale.md do what the page says, on small pools and in one folder."""

import shlex

import pytest
from blocks import ROOT, blocks_of
from typer.testing import CliRunner

from homing.cli.app import app
from homing.recipe.reading import parse_recipe
from small_run import draw_folder

BLOCKS = blocks_of(ROOT / "docs/scale.md")
POOLS = "data: {source: {path: pool}, target: {path: photos}}\n"
SMALL = ["model.backbone=test_resnet", "model.weights=none", "model.image_size=32"]


def text_of(language):
    (text,) = [block.text for block in BLOCKS if block.language == language]
    return text


def test_the_settings_of_a_large_pool_are_a_recipe():
    recipe = parse_recipe(POOLS + text_of("yaml").replace("workers", "epochs: 0, workers"))
    assert (recipe.output.cache_gb, recipe.training.workers) == (600, 12)


def test_every_way_to_scan_fills_the_same_folder(tmp_path, monkeypatch):
    draw_folder(tmp_path / "pool", 8, seed=1, share_dark=0.3)
    draw_folder(tmp_path / "photos", 4, seed=2, share_dark=1)
    (tmp_path / "recipe.yaml").write_text(POOLS + "training: {epochs: 0, workers: 0}\n")
    monkeypatch.chdir(tmp_path)
    lines = [line for line in text_of("bash").splitlines() if line and not line.startswith("#")]
    assert len(lines) == 3
    told = []
    for line in (line for line in reversed(lines) if "--engine" not in line):  # a test of its own has a Ray cluster
        words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "2").replace("/64", "/4").replace("/shared", "shared"))
        result = CliRunner().invoke(app, [*words[words.index("scan") :], *SMALL])
        assert result.exit_code == 0, (line, result.output, result.exception)
        told.append(result.stdout)
    assert "9 images scanned, of 36" in told[0]
    assert "27 images scanned, of 36" in told[1]


@pytest.mark.parametrize("option", ["--part", "--engine", "--address", "--verify"])
def test_options_of_the_page_are_those_of_the_command(option):
    assert option in CliRunner().invoke(app, ["scan", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
