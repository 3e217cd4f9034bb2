"""Where one process of a run is killed, stopped or sees other files, all end within a minute, and one says why."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from processes import LONG_ENOUGH, ended, homing, start
from small_run import draw_problem, small_recipe


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
        self.folder = folder
        self.process = start(_launch, folder)

    def wait_for_steps(self, count: int) -> None:
        metrics, deadline = self.folder / "run" / "metrics.jsonl", time.monotonic() + LONG_ENOUGH
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < count:
            assert not ended(self.process, 0.05), self.told()
            assert time.monotonic() < deadline, "no step was taken"

    def pid(self, rank: int) -> int:
        return int((self.folder / f"pid-{rank}").read_text())

    def told(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "logs").rglob("stderr.log"))


def _launch(folder: Path) -> None:
    """`torchrun` but for the start: its agent forks the group, which then need not import everything anew."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["ACCELERATE_USE_CPU"] = "1"
    (folder / "logs").mkdir()
    logs = DefaultLogsSpecs(str(folder / "logs"), redirects=Std.ALL)
    store = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0"}
    config = LaunchConfig(1, 1, 2, **store, max_restarts=0, start_method="fork", logs_specs=logs)
    try:
        elastic_launch(config, _run)(folder)
    except ChildFailedError:
        sys.exit(1)


def _run(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # a fork has its agent's handlers, which raise
        signal.signal(number, signal.SIG_DFL)
    (folder / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    homing("run", folder / "recipe.yaml", "--output", folder / "run")


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
        assert ended(run.process, LONG_ENOUGH), "waits for ever"
        assert run.process.exitcode != 0
        assert not Path(f"/proc/{other}").exists()
    finally:
        run.process.kill()
    told = run.told()
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
        assert ended(run.process, LONG_ENOUGH), "waits for ever"
        assert run.process.exitcode != 0
    finally:
        run.process.kill()
    told = run.told()
    assert "Traceback" not in told
    (line,) = _lines(told)
    assert "process 1 of 2 found the pools to be different" in line
    assert not (tmp_path / "run").exists()
