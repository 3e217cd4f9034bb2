"""Real SIGKILLs, at random times and at every stage of a save: the newest checkpoint is whole, the end is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from resumable import draw, left_by, resumable
from safetensors.torch import load_file

from homing.errors import CheckpointError
from homing.flow import run
from homing.training.checkpoint import load_checkpoint, newest_checkpoint
from long_runs import LONG, often
from processes import ended, homing, start
from small_run import draw_problem, small_recipe


def checkpoints_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("step-*") if path.is_dir() and ".tmp" not in path.name]


@pytest.mark.timeout(1_800)
def test_a_chain_of_kills_at_random_times_ends_like_the_unkilled_run(tmp_path):
    wanted, generator = often(3, 30), random.Random(4)
    recipe = small_recipe(
        draw_problem(tmp_path / "pools"),
        f"training.steps={often(20, 400)}",
        "rates.method=instance",
        "training.ema=0.9",
        "output.log_every=1",
        "output.checkpoint_every=2",
    )
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    started = time.monotonic()
    whole = run(recipe, tmp_path / "whole", quiet=True).folder
    seconds = time.monotonic() - started
    kills, attempt, unreadable = 0, 0, []
    while kills < wanted or not (tmp_path / f"cut-{attempt}" / "results.json").exists():
        folder = tmp_path / f"cut-{attempt}"
        if (folder / "results.json").exists():  # it got through with too few kills: once more, from the beginning
            attempt += 1
            continue
        arguments = ("run", tmp_path / "recipe.yaml", "--output", folder, "--resume", "--quiet")
        process = start(homing, *arguments, stderr=tmp_path / "err")
        if kills < wanted and not ended(process, generator.uniform(0, 0.5 + seconds * 3 / wanted)):
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), (tmp_path / "err").read_text()
        for path in checkpoints_in(folder) if folder.exists() else []:
            try:
                load_checkpoint(path)
            except CheckpointError as error:
                unreadable.append(str(error))
    print(f"{kills} kills, {attempt + 1} chains, {len(unreadable)} unreadable checkpoints")
    assert unreadable == []
    assert kills == wanted
    for number in range(attempt + 1):
        _assert_same_run(whole, tmp_path / f"cut-{number}")


def _assert_same_run(whole: Path, other: Path) -> None:
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (whole, other))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert (whole / "rates.parquet").read_bytes() == (other / "rates.parquet").read_bytes()
    tables = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (whole, other)
    ]
    for row in (*tables[0], *tables[1]):
        del row["seconds"]
    assert tables[0] == tables[1]


STEPS = 3
PARTS = [f"{part}.safetensors" for part in ("model", "loop", "optimizer", "ema", "rates")]
FILES = [*PARTS, "state.json", "manifest.json"]
STAGES = [
    "make folder",
    *(f"{action} {file}" for file in FILES for action in ("write", "fsync")),
    *("flush folder", "rename", "flush parent", "prune"),
]
KILLED_AT = STAGES if LONG else [stage for stage in STAGES if not stage.endswith(tuple(PARTS[1:]))]


@pytest.fixture(scope="module")
def small_whole(tmp_path_factory):
    """Pictures, and a training of a few steps that nothing stopped."""
    folder = tmp_path_factory.mktemp("small")
    pictures, stages = draw(folder / "pictures"), []
    resumable("vit", pictures, folder / "run", num_steps=STEPS, keep=2, reached=stages.append).run()
    assert stages == STAGES * STEPS  # what is killed below is all that there is
    return pictures, folder / "run"


def _train_until_killed(pictures: Path, folder: Path, number: int, stage: str) -> None:
    """Train, and die when the `number`-th save reaches a stage."""
    saves = 0

    def reached(name: str) -> None:
        nonlocal saves
        saves += name == STAGES[0]
        if (saves, name) == (number, stage):
            os.kill(os.getpid(), signal.SIGKILL)

    resumable("vit", pictures, folder, num_steps=STEPS, keep=2, reached=reached).run()


@pytest.mark.parametrize("stage", KILLED_AT)
def test_killed_at_any_stage_of_a_save_it_goes_on_from_a_whole_checkpoint(small_whole, tmp_path, stage):
    pictures, whole = small_whole
    processes = {
        number: start(_train_until_killed, pictures, tmp_path / str(number), number, stage) for number in (1, 3)
    }
    for number, process in processes.items():
        process.join()
        assert process.exitcode == -signal.SIGKILL
        folder = tmp_path / str(number)
        found = newest_checkpoint(folder / "checkpoints")
        after_rename = stage in ("flush parent", "prune")
        assert (found and found.name) == (
            f"step-{number - 1 + after_rename:06d}" if number - 1 + after_rename else None
        )
        for path in (folder / "checkpoints").glob("step-*"):
            load_checkpoint(path)
        resumable("vit", pictures, folder, num_steps=STEPS, keep=2, every=2).run()
        left = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert left[-2:] == ["step-000002", "step-000003"]
        assert len(left) == 2 or (number, after_rename) == (STEPS, True)  # killed before the last pruning of all
        assert left_by(folder, STEPS) == left_by(whole, STEPS)


@pytest.mark.parametrize("stage", ["set the old one aside", "rename"])
def test_killed_while_a_checkpoint_is_replaced_an_older_one_is_there(small_whole, tmp_path, stage):
    process = start(_replace_until_killed, *small_whole, tmp_path, stage)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found.name == ("step-000003" if stage == "set the old one aside" else "step-000002")
    load_checkpoint(found)


def _replace_until_killed(pictures: Path, whole: Path, folder: Path, stage: str) -> None:
    import shutil

    from homing.training.checkpoint import save_checkpoint

    def reached(name: str) -> None:
        if name == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    shutil.copytree(whole / "checkpoints", folder / "checkpoints")
    checkpoint = load_checkpoint(folder / "checkpoints" / "step-000003")
    save_checkpoint(folder / "checkpoints", 3, checkpoint, 2, reached)
