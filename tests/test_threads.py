"""Threads follow what a process may use, and what the user has set stays."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from homing.threads import settle_threads, usable_cores
from processes import LONG_ENOUGH, ended, group_of, start
from small_run import draw_problem, small_recipe


def test_cores_follow_the_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from homing.threads import usable_cores; print(usable_cores())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_what_the_user_has_set_stays():
    environment = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "TORCH_CPP_LOG_LEVEL": "INFO"}
    settle_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "TORCH_CPP_LOG_LEVEL": "INFO"}


def test_processes_of_one_launcher_share_the_cores():
    group = {**group_of(2)[1], "OMP_NUM_THREADS": ""}
    shared, odd, left_over = {**group, "LOCAL_WORLD_SIZE": "1000"}, {**group, "LOCAL_WORLD_SIZE": "many"}, {}
    left_over["LOCAL_WORLD_SIZE"] = "1000"  # of no group
    for environment in (shared, odd, left_over):
        settle_threads(environment)
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(left_over["OMP_NUM_THREADS"]) == int(odd["OMP_NUM_THREADS"]) == usable_cores()
    assert shared["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("given", "kept"), [("4", True), ("4, 2", True), ("garbage", False), ("0", False), ("", False)]
)
def test_a_number_of_threads_that_openmp_cannot_read_is_replaced(given, kept):
    environment = {"OMP_NUM_THREADS": given}
    settle_threads(environment)
    assert environment["OMP_NUM_THREADS"] == (given if kept else str(usable_cores()))


def test_the_program_sets_them_before_torch_is_loaded_and_the_library_does_not():
    code = "import os, homing, homing.rates; assert 'OMP_WAIT_POLICY' not in os.environ\n"
    code += "import sys; sys.argv = ['homing', 'recipes']\n"
    code += "from homing.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "print(os.environ['OMP_WAIT_POLICY'], file=sys.stderr)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "PASSIVE"


def _rate_in_threads(recipe: str, folder: Path, threads: int) -> None:
    import torch

    from homing.flow import run
    from homing.recipe.reading import parse_recipe

    torch.set_num_threads(threads)
    run(parse_recipe(recipe), folder / f"run-{threads}", quiet=True)
    assert torch.get_num_threads() == threads


def test_one_and_two_threads_find_the_same_rates_where_a_pool_has_fewer_rows_than_features(tmp_path):
    """The projection of such features is not unique by itself: rounding must not choose it."""
    settings = ("training.epochs=0", "training.steps=null", "output.cache=none", "model.image_size=64")
    recipe = small_recipe(draw_problem(tmp_path / "pools"), *settings).to_yaml()
    for threads in (1, 2):
        process = start(_rate_in_threads, recipe, tmp_path, threads, stderr=tmp_path / "err")
        assert ended(process, LONG_ENOUGH), "waits for ever"
        assert process.exitcode == 0, (tmp_path / "err").read_text()
    one, two = (pq.read_table(tmp_path / f"run-{threads}" / "rates.parquet").to_pandas() for threads in (1, 2))
    assert one.sample_id.tolist() == two.sample_id.tolist()
    assert one.rate.std() > 0.01, "uniform rates show nothing"
    assert (one.rate - two.rate).abs().max() < 1e-4
