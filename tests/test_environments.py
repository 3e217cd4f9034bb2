"""A run, or one sentence: without a home, streams closed, an alphabet too small, tight limits, as nobody."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from processes import LONG_ENOUGH, ended, homing, start
from small_run import draw_problem, small_recipe

LAUNCHERS_LEFTOVERS = {
    "half a group": {"RANK": "1", "WORLD_SIZE": "4"},
    "another's group of one": {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "gone.invalid"},
    "a job of Slurm": {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1", "SLURM_LOCALID": "3"},
}
SEEN_AT_THE_START = {
    "no numbers, no optimisation of messages, a small alphabet, a file for temporary files": {
        **{"OMP_NUM_THREADS": "many", "LOCAL_WORLD_SIZE": "few", "CUDA_VISIBLE_DEVICES": ""},
        **{"PYTHONOPTIMIZE": "2", "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TMPDIR": __file__},
    },
    "warnings are errors, no folder for temporary files": {"PYTHONWARNINGS": "error", "TMPDIR": "/gone/for/good"},
}
"""What the interpreter or a library reads when it is loaded."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Rates of a small pool, nothing trained."""
    folder = tmp_path_factory.mktemp("environments")
    pools = draw_problem(folder / "pools")
    os.rename(pools / "source" / "disk", pools / "source" / "кошка")
    for role in ("target", "test"):
        if (pools / role / "disk").exists():
            os.rename(pools / role / "disk", pools / role / "кошка")
    written = folder / "recipe.yaml"
    written.write_text(small_recipe(pools, "training.epochs=0", "output.cache=none").to_yaml())
    return written


def run_in(
    recipe: Path, output: Path, *more: str, before: Callable[[], None] | None = None, **changed: str | None
) -> subprocess.CompletedProcess[str]:
    """`homing run` in a process whose environment and limits differ."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"} | changed
    return subprocess.run(
        [sys.executable, "-m", "homing", "run", str(recipe), "--output", str(output), "--quiet", *more],
        env={name: value for name, value in environment.items() if value is not None},
        preexec_fn=before,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LONG_ENOUGH,
        check=False,
    )


def call(log: Path, function: Callable[..., None], *arguments: object, **environment: str) -> tuple[int, str]:
    """Exit code and last line of stderr of a command that is called in a process which has imported everything."""
    process = start(function, *arguments, stderr=log, **environment)
    assert ended(process, LONG_ENOUGH)
    return process.exitcode, (log.read_text().splitlines() or [""])[-1]


def run_to(recipe: Path, folder: Path) -> tuple[object, ...]:
    return "run", recipe, "--output", folder / "run", "--quiet"


def is_one_sentence(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a refusal names what is wrong, and nothing of our code."""
    return done.returncode != 0 and "Traceback" not in done.stderr and "homing: " in done.stderr


@pytest.mark.parametrize("what", SEEN_AT_THE_START)
def test_what_others_left_in_the_environment_does_not_end_a_run(recipe, tmp_path, what):
    done = run_in(recipe, tmp_path / "run", **SEEN_AT_THE_START[what])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "rates.parquet").exists()
    assert "rates:" in done.stdout
    assert "runs alone" not in done.stderr


@pytest.mark.parametrize("leftover", LAUNCHERS_LEFTOVERS)
def test_what_other_launchers_left_does_not_end_a_run(recipe, tmp_path, leftover):
    code, _ = call(tmp_path / "log", homing, *run_to(recipe, tmp_path), **LAUNCHERS_LEFTOVERS[leftover])
    assert code == 0
    assert (tmp_path / "run" / "rates.parquet").exists()
    assert ("runs alone" in (tmp_path / "log").read_text()) == (leftover == "half a group")


def as_nobody() -> None:
    """A user of a number alone, in a namespace of its own; where none is granted, the same user without a home."""
    uid, gid, system = os.getuid(), os.getgid(), ctypes.CDLL(None)
    os.umask(0o077)
    if system.unshare(0x10000000) == 0:  # CLONE_NEWUSER
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"54321 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"54321 {gid} 1")


def test_a_user_without_home_runs_and_keeps_no_cache(recipe, tmp_path):
    changed = dict.fromkeys(("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "HOMING_CACHE"))
    done = run_in(recipe, tmp_path / "run", "output.cache=user", before=as_nobody, **changed)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "rates.parquet").exists()


def test_closed_streams_do_not_end_a_run_nor_reach_its_files(recipe, tmp_path):
    done = run_in(recipe, tmp_path / "run", before=partial(os.closerange, 0, 3))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").read_bytes().startswith(b"{")


def _without(stream: str, *arguments: object) -> None:
    """As the interpreter begins where a stream is closed."""
    os.close({"stdout": 1, "stderr": 2}[stream])
    setattr(sys, stream, None)
    setattr(sys, f"__{stream}__", None)
    homing(*arguments)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_closed_stream_does_not_end_a_run_nor_reach_its_files(recipe, tmp_path, stream):
    assert call(tmp_path / "log", _without, stream, *run_to(recipe, tmp_path)) == (0, "")
    assert (tmp_path / "run" / "results.json").read_bytes().startswith(b"{")


def test_a_reader_that_leaves_ends_nothing_but_what_it_read(recipe, tmp_path):
    command = f"{sys.executable} -m homing run {recipe} --output {tmp_path / 'run'} --quiet | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=LONG_ENOUGH, check=False
    )
    assert done.returncode == 141  # as of any program that SIGPIPE ends
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "run" / "rates.parquet").exists()


def test_few_open_files_are_enough(recipe, tmp_path):
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = run_in(recipe, tmp_path / "run", before=few)
    assert done.returncode == 0 or is_one_sentence(done), done.stderr


def _with_little_room(room: int, *arguments: object) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    homing(*arguments)


def test_a_full_disk_is_one_sentence_with_the_file(recipe, tmp_path):
    code, told = call(tmp_path / "log", _with_little_room, 2_000, *run_to(recipe, tmp_path))
    assert (code, told.startswith(f"homing: {tmp_path / 'run'}")) == (1, True), told
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_full_disk_under_two_tables_at_once_is_one_sentence(finished_run, tmp_path):
    files = ("--output", tmp_path / "p.parquet", "--embeddings", tmp_path / "e.parquet")
    command = ("predict", finished_run, finished_run.parent / "test", *files, "--quiet")
    code, told = call(tmp_path / "log", _with_little_room, 4_000, *command)
    assert (code, told.startswith(f"homing: {tmp_path / 'e.parquet'}: ")) == (1, True), told
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_cache_whose_disk_is_full_in_mid_scan_is_one_sentence_and_goes_on_when_there_is_room(recipe, tmp_path):
    command = ("scan", recipe, f"output.cache={tmp_path / 'cache'}", "--quiet")
    code, told = call(tmp_path / "log", _with_little_room, 1_500, *command)
    assert (code, told.startswith(f"homing: {tmp_path / 'cache'}")) == (1, True), told
    assert "Traceback" not in (tmp_path / "log").read_text()
    left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".tmp"]
    assert call(tmp_path / "log-2", homing, *command) == (0, "")
    assert not any(path.exists() for path in left)
    assert [path.suffix for path in (tmp_path / "cache").rglob("*.npy")] != []


def test_a_file_name_that_is_no_text_is_one_sentence(recipe, tmp_path, finished_run):
    pool = tmp_path / "pool"
    shutil.copytree(finished_run.parent / "target", pool)
    odd = Path(os.fsdecode(os.fsencode(pool / "bar" / "x") + b"\xff\xfe.png"))
    shutil.copy(next((pool / "bar").iterdir()), odd)
    code, told = call(tmp_path / "log", homing, "validate", recipe, f"data.target.path={pool}", "--quiet")
    assert (code, told) == (3, "")
    code, told = call(tmp_path / "log", homing, "run", recipe, f"data.target.path={pool}", "--output", tmp_path / "run")
    assert code == 3
    assert told.endswith(r"the name 'x\udcff\udcfe.png' is not UTF-8; rename the file or folder")
    code, told = call(tmp_path / "log", homing, "predict", finished_run, odd, "--quiet")
    assert code == 3
    assert told.endswith(r"x\udcff\udcfe.png: the name is not UTF-8; rename the file or folder")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_working_folder_that_is_gone_is_one_sentence(recipe, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()

    def leave() -> None:
        os.chdir(gone)
        os.rmdir(gone)

    done = run_in(recipe, tmp_path / "run", before=leave)
    assert is_one_sentence(done), done.stderr


def _to_a_full_device(*arguments: object) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    homing(*arguments)


def test_results_that_cannot_be_printed_are_an_error(recipe, tmp_path):
    code, told = call(tmp_path / "log", _to_a_full_device, *run_to(recipe, tmp_path))
    assert (code, "standard output" in told) == (1, True), told
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert (tmp_path / "run" / "rates.parquet").exists()
