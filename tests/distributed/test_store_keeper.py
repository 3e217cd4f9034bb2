"""Without a launcher that keeps the store, the first process does: where it is stopped, the store never answers."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from processes import LONG_ENOUGH, ended, group_of, homing, start, start_group
from small_run import draw_problem, small_recipe


def _wait(folder: Path) -> None:
    """Watch with little patience, and wait in a collective for a process that never comes."""
    from homing.training import liveness
    from homing.training.trackers import tracking_accelerator

    liveness.BEAT, liveness.SILENCE, liveness.GRACE = 0.25, 6.0, 1.0
    accelerator = tracking_accelerator([], folder)
    rank = accelerator.process_index
    with liveness.watching(accelerator):
        accelerator.wait_for_everyone()
        (folder / f"waits-{rank}").touch()
        if rank == 0:
            time.sleep(120)
        accelerator.reduce(torch.ones(1))


def test_the_stop_of_the_process_that_keeps_the_store_ends_the_others(tmp_path):
    group = start_group(_wait, 2, tmp_path, stderr=tmp_path / "err")
    try:
        while not all((tmp_path / f"waits-{rank}").exists() for rank in range(2)):
            assert not any(ended(process, 0.05) for process in group)
        os.kill(group[0].pid, signal.SIGSTOP)
        assert ended(group[1], LONG_ENOUGH), "waits for ever"
    finally:
        group[0].kill()
        group[0].join()
    assert group[1].exitcode == 75
    (line,) = (tmp_path / "err-1").read_text().splitlines()
    assert line.startswith("homing: process 1: process 0 of 2, or what launched them all, does not answer")


def _run_alone(recipe: Path, folder: Path) -> None:
    from homing.training import trackers

    trackers._ARRIVAL = timedelta(seconds=2)
    homing("run", recipe, "--output", folder, "--quiet")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_group_never_arrives_says_so_and_ends(tmp_path, rank):
    (tmp_path / "recipe.yaml").write_text(small_recipe(draw_problem(tmp_path / "pools")).to_yaml())
    own = group_of(2)[rank]
    process = start(_run_alone, tmp_path / "recipe.yaml", tmp_path / "run", stderr=tmp_path / "err", **own)
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 2
    told = (tmp_path / "err").read_text()
    assert f"process {rank} of 2 did not find the others within 2 s" in told
    assert told.count("homing: ") == 1
    assert "Traceback" not in told
