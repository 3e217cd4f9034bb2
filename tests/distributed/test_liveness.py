"""Where one process of a run is killed, stopped or sees other files, all end within a minute, and one says why."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_run import draw_problem, small_recipe

IN_TIME = 60  # seconds for all processes to end


class Launched:
    """`homing run` in two processes under torch's own launcher; the stderr of each in a file of its own."""

    def __init__(self, folder: Path, source: str = "source") -> None:
        pools = folder / "pools"
        recipe = small_recipe(
            pools if pools.exists() else draw_problem(pools),
            *("rates.method=uniform", "training.steps=100000", "output.log_every=1"),
        )
        tree = recipe.to_yaml().replace(str(pools / "source"), str(pools / source))
        (folder / "recipe.yaml").write_text(tree)
        self.folder, self.logs = folder, folder / "logs"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += ["--log-dir", str(self.logs), "--redirects", "3"]
        command += ["-m", "homing", "run", str(folder / "recipe.yaml"), "--output", str(folder / "run")]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"ACCELERATE_USE_CPU": "1", "HOMING_TEST": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_for_steps(self, count: int) -> None:
        metrics, deadline = self.folder / "run" / "metrics.jsonl", time.monotonic() + 120
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < count:
            assert self.process.poll() is None, self.told(0) + self.told(1)
            assert time.monotonic() < deadline, "no step was taken"
            time.sleep(0.05)

    def pid(self, rank: int) -> int:
        """Of the process of a rank."""
        for place in Path("/proc").iterdir():
            try:
                own = (place / "environ").read_bytes().split(b"\0")
                if f"HOMING_TEST={self.folder}".encode() not in own or f"RANK={rank}".encode() not in own:
                    continue
                return int(place.name)
            except (OSError, ValueError):
                continue
        raise AssertionError(f"no process of rank {rank}")

    def told(self, rank: int) -> str:
        found = list(self.logs.rglob(f"{rank}/stderr.log"))
        return found[0].read_text() if found else ""


def _lines(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("homing: ")]


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGKILL, "was killed or ended without a word"), (signal.SIGSTOP, "was not heard of for")],
)
def test_a_process_that_is_killed_or_stopped_ends_the_others_with_one_sentence(tmp_path, number, why):
    run = Launched(tmp_path)
    try:
        run.wait_for_steps(5)
        other = run.pid(1)
        os.kill(other, number)
        assert run.process.wait(IN_TIME) != 0
        assert not Path(f"/proc/{other}").exists()
    finally:
        run.process.kill()
    told = run.told(0) + run.told(1)
    assert "Traceback" not in told
    (line,) = _lines(told)
    assert line.startswith(f"homing: process 1 of 2 {why}")
    assert line.endswith("go on with --resume")
    assert (tmp_path / "run" / "checkpoints").exists()


def test_a_process_that_sees_a_file_less_ends_both_before_anything_is_begun(tmp_path):
    """As on a file system that has not caught up."""
    pools = draw_problem(tmp_path / "pools")
    for rank in (0, 1):
        shutil.copytree(pools / "source", pools / f"source-{rank}")
    next((pools / "source-1").rglob("*.png")).unlink()
    run = Launched(tmp_path, "source-$RANK")
    try:
        assert run.process.wait(IN_TIME) != 0
    finally:
        run.process.kill()
    told = run.told(0) + run.told(1)
    assert "Traceback" not in told
    (line,) = _lines(told)
    assert "process 1 of 2 found the pools to be different" in line
    assert not (tmp_path / "run").exists()
