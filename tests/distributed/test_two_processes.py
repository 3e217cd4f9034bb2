"""One process and two give the same run: real processes, gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from homing.flow import run
from processes import end_group, homing, start_group
from small_run import draw_folder, draw_problem, small_recipe


@pytest.mark.parametrize(
    ("method", "trainable"), [("hierarchical", "all"), ("instance", "all"), ("instance", "last_stage")]
)
def test_two_processes_give_the_weights_and_rates_of_one(tmp_path, method, trainable):
    problem = draw_problem(tmp_path / "pools")
    overrides = (
        f"rates.method={method}",
        "model.backbone=test_vit",
        f"model.trainable={trainable}",
        "training.batch_size=7",
        "training.accumulate=2",
        "training.optimizer=momentum",  # Adam would blow up the rounding of gradients that are zero (key biases)
        "training.learning_rate=0.02",
        "rates.observe_every=2",
        "rates.apply=weight",
        "output.cache=none",  # both scan
    )
    if method == "hierarchical":  # the one that learns from unlabelled images; the second branch what the first guesses
        draw_folder(problem / "unlabelled", 5, seed=5, share_dark=0.6)
        unlabelled = f"data.unlabelled.path={problem / 'unlabelled'}"
        overrides = (*overrides, unlabelled, "training.branches=2", "training.steps=8")
    recipe = small_recipe(problem, *overrides)
    one, two = tmp_path / "one", tmp_path / "two"
    run(recipe, one, quiet=True)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    end_group(start_group(homing, 2, "run", tmp_path / "recipe.yaml", "--output", two, "--quiet"))
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (one, two)]
    distance = sum(float((weights[0][name] - weights[1][name]).square().sum()) for name in weights[0]) ** 0.5
    length = sum(float(tensor.square().sum()) for tensor in weights[0].values()) ** 0.5
    assert distance <= 1e-5 * length
    tables = [pq.read_table(folder / "rates.parquet").to_pandas().set_index("sample_id") for folder in (one, two)]
    assert (tables[0].rate - tables[1].rate).abs().max() < 1e-4
    assert (tables[0].visits == tables[1].visits).all()
    if method == "hierarchical":
        guessed = [pq.read_table(folder / "unlabelled.parquet").to_pandas() for folder in (one, two)]
        assert (guessed[0][["sample_id", "guess", "visits"]] == guessed[1][["sample_id", "guess", "visits"]]).all(
            axis=None
        )
        assert (guessed[0].rate - guessed[1].rate).abs().max() < 1e-4


def test_two_processes_scan_as_one_does_and_both_leave_out_what_cannot_be_read(tmp_path):
    problem = draw_problem(tmp_path / "pools", per_class=9)
    (problem / "source" / "disk" / "003.png").write_bytes(b"no picture")
    recipe = small_recipe(
        problem, "training.epochs=0", "output.cache=none", "data.on_bad_image=drop", "rates.descriptors=[]"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    run(recipe, one, quiet=True)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "homing", "run", str(tmp_path / "recipe.yaml"), "--output", str(two), "--quiet", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if torch.cuda.is_available():  # a machine without GPUs needs to be told nothing
        environment["ACCELERATE_USE_CPU"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [item["image"] for item in results["dropped"]] == ["source disk/003.png"]
    tables = [pq.read_table(folder / "rates.parquet").to_pandas().set_index("sample_id") for folder in (one, two)]
    for column in ("rate", "target_likeness"):
        assert (tables[0][column] - tables[1][column]).abs().max() < 1e-3
