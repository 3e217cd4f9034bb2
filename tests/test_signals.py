"""Real signals to a real run: it finishes its step, saves, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from homing.flow import run
from homing.interrupts import StopOnSignal
from homing.outputs.ownership import marked
from processes import LONG_ENOUGH, ended, homing, start
from small_run import draw_problem, small_recipe


def steps_in(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A recipe, and the folder of its run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = small_recipe(draw_problem(folder / "pools"), "training.steps=60", "output.log_every=1")
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return recipe, run(recipe, folder / "run", quiet=True).folder


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140), (signal.SIGHUP, 129)],
)
def test_a_signal_saves_and_resuming_ends_like_an_uninterrupted_run(whole, tmp_path, number, code):
    recipe, unstopped = whole
    process = start(
        homing, "run", unstopped.parent / "recipe.yaml", "--output", tmp_path / "cut", stderr=tmp_path / "err"
    )
    while len(steps_in(tmp_path / "cut")) < 3:
        assert not ended(process, 0.01), (tmp_path / "err").read_text()
    os.kill(process.pid, signal.SIGSTOP)  # no step is taken between the look and the signal
    last = steps_in(tmp_path / "cut")[-1]
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGCONT)
    assert ended(process, LONG_ENOUGH), "waits for ever"
    told = (tmp_path / "err").read_text()
    assert process.exitcode == code, told
    assert "--resume" in told
    assert "Traceback" not in told
    stopped = steps_in(tmp_path / "cut")[-1]
    assert last <= stopped <= last + 2  # the step at hand, and one that may have ended before the signal was sent
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").glob("step-*")] == [f"step-{stopped:06d}"]
    assert not (tmp_path / "cut" / "results.json").exists()
    spent = marked(tmp_path / "cut")["seconds"]
    cost = run(recipe, tmp_path / "cut", resume=True, quiet=True).results["cost"]
    assert cost["source_gradients"] > 0
    assert cost["seconds"] > spent["run"] > spent["hierarchical"] > 0
    assert cost["method_seconds"]["hierarchical"] > spent["hierarchical"]
    assert marked(tmp_path / "cut")["seconds"] == {}
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (unstopped, tmp_path / "cut"))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert steps_in(tmp_path / "cut") == list(range(1, 61))


def test_a_signal_before_the_training_ends_the_run_too(whole, tmp_path):
    """A scan of a large pool takes hours: it does not have to be waited for."""
    command = ("run", whole[1].parent / "recipe.yaml", "output.cache=none", "--output", tmp_path / "run")
    process = start(_with_a_signal_in_the_scan, *command, stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    told = (tmp_path / "err").read_text()
    assert process.exitcode == 143, told
    assert "stopped outside of training" in told
    assert steps_in(tmp_path / "run") == []


@pytest.mark.parametrize("verb", ["rate", "scan"])
def test_what_cannot_be_resumed_is_told_how_to_go_on(whole, tmp_path, verb):
    output = ("--output", tmp_path / "rates.parquet") if verb == "rate" else ()
    command = (verb, whole[1].parent / "recipe.yaml", f"output.cache={tmp_path / 'cache'}", *output)
    process = start(_with_a_signal_in_the_scan, *command, stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    told = (tmp_path / "err").read_text()
    assert (process.exitcode, "--resume" in told) == (143, False), told
    assert "the same command goes on with what was scanned" in told
    process = start(homing, *command)
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 0
    assert not (tmp_path / ".rates.parquet.homing-run").exists()


def _with_a_signal_in_the_scan(*command: object) -> None:
    from homing.models.inputs import ImageInputs

    real = ImageInputs.examining

    def examining(self, *arguments, **settings):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments, **settings)

    ImageInputs.examining = examining
    homing(*command)


def test_a_hangup_that_was_to_be_ignored_is_ignored():
    """Under nohup the terminal may go."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopOnSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_second_signal_ends_the_process_at_once(number):
    """A step that never ends: the first signal is only noted."""
    script = (
        "from homing.interrupts import StopOnSignal\n"
        "with StopOnSignal() as stop:\n"
        "    print('ready', flush=True)\n"
        "    while not stop.asked: pass\n"
        "    print('asked', flush=True)\n"
        "    while True: pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        assert process.wait(LONG_ENOUGH) == -number  # and not by itself, ever
