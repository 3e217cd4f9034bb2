"""Real signals to a real run: it finishes its step, saves, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from homing.run import run
from small_run import draw_problem, small_recipe


def start(recipe, output, *flags) -> subprocess.Popen:
    command = [sys.executable, "-m", "homing", "run", str(recipe), "--output", str(output), *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def wait_for_rows(folder, count, process):
    """Until the run has written some rows of metrics: it is in the middle of its training."""
    path = folder / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resuming_ends_like_an_uninterrupted_run(tmp_path, number, code):
    recipe = small_recipe(draw_problem(tmp_path / "pools"), "training.steps=60", "output.log_every=1")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    process = start(tmp_path / "recipe.yaml", tmp_path / "cut")
    wait_for_rows(tmp_path / "cut", 3, process)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == code, told
    assert "--resume" in told
    assert "Traceback" not in told
    assert not (tmp_path / "cut" / "results.json").exists()
    assert run(recipe, tmp_path / "cut", resume=True, quiet=True).results["cost"]["source_gradients"] > 0
    whole = run(recipe, tmp_path / "whole", quiet=True).folder
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (whole, tmp_path / "cut"))
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path):
    recipe = small_recipe(
        draw_problem(tmp_path / "pools"), "training.steps=60", "output.log_every=1", "output.checkpoint_every=2"
    )
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    for rows in (5, 20):
        process = start(tmp_path / "recipe.yaml", tmp_path / "cut", "--resume")
        wait_for_rows(tmp_path / "cut", rows, process)
        process.kill()
        process.communicate()
    run(recipe, tmp_path / "cut", resume=True, quiet=True)
    whole = run(recipe, tmp_path / "whole", quiet=True).folder
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (whole, tmp_path / "cut"))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    rows = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, 61))
