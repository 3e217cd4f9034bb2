"""Chains of SIGKILLs at random moments: what is there in the end is what an undisturbed command leaves, and no more."""

from __future__ import annotations

import csv
import json
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from long_runs import often
from processes import ended, homing, start
from small_run import draw_folder, draw_problem, small_recipe

VERBS = {"corpus": ("--format", "folder"), "score": (), "export": ()}


def files_in(folder: Path) -> dict[str, bytes]:
    """All files but a model's card, which tells where the model lies."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def call(log: Path, arguments: Sequence[object]) -> float:
    """Run a command to its end; the seconds that it took."""
    started, process = time.monotonic(), start(homing, *arguments, stderr=log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - started


def killed(log: Path, arguments: Sequence[object], seconds: float) -> bool:
    """Kill a command after some seconds; whether it was still at work."""
    process = start(homing, *arguments, stderr=log)
    if not ended(process, seconds):
        process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_is_killed_again_and_again_leaves_its_output_whole_or_none(finished_run, tmp_path, verb):
    generator, kills, wanted = random.Random(verb), 0, often(2, 30)
    pool = [finished_run.parent / "test"] if verb == "score" else []
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.txt").write_text("precious")
    plain = (verb, finished_run, *pool, *VERBS[verb], "--output")
    call(tmp_path / "log", (*plain, tmp_path / "whole"))  # the first one waits for the server of processes, too
    took = call(tmp_path / "log", (*plain, tmp_path / "again"))
    before = files_in(finished_run)
    arguments = (verb, finished_run, *pool, *VERBS[verb], "--output", work / "out")
    while kills < wanted:
        was_killed = killed(tmp_path / "log", arguments, generator.uniform(0.1, 1) * took)
        kills += was_killed
        assert was_killed or (work / "out").exists(), (tmp_path / "log").read_text()
        if (work / "out").exists():  # whole, and in the way of the next
            assert files_in(work / "out") == files_in(tmp_path / "whole")
            (work / "out").rename(tmp_path / f"done-{time.monotonic_ns()}")
    call(tmp_path / "log", arguments)
    assert files_in(work / "out") == files_in(tmp_path / "whole")
    assert sorted(path.name for path in work.iterdir()) == ["mine.txt", "out"]
    assert files_in(finished_run) == before
    assert "Traceback" not in (tmp_path / "log").read_text()


def killed_until(log: Path, arguments: Sequence[object], output: Path, took: float, wanted: int) -> Path:
    """Kill and resume a command until it was killed often enough, anew where it ends before; the last folder."""
    generator, kills, chains = random.Random(3), 0, 0
    while True:
        folder, ended_by_itself = output / str(chains), False
        while not ended_by_itself:
            resume = ["--resume"] if folder.exists() and any(folder.iterdir()) else []
            asked = [*arguments, "--output", folder, *resume]
            if kills >= wanted:
                call(log, asked)
                return folder
            ended_by_itself = not killed(log, asked, generator.uniform(0.2, 1) * took)
            assert not ended_by_itself or "Traceback" not in log.read_text(), log.read_text()
            kills += not ended_by_itself
        chains += 1


COSTS = ("seconds", "cost", "scanned_source_images")


def without_costs(value: object) -> object:
    """JSON without what a run cost, which a resumed one pays in part."""
    if isinstance(value, dict):
        return {key: without_costs(item) for key, item in value.items() if key not in COSTS}
    return [without_costs(item) for item in value] if isinstance(value, list) else value


def content_of(path: Path) -> object:
    """What has to be the same: bytes, but for what tells of costs; of JSON the order of its keys too."""
    if path.name in ("results.json", "comparison.json"):
        return json.dumps(without_costs(json.loads(path.read_text())))
    if path.name == "metrics.jsonl":
        return [without_costs(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name == "comparison.csv":
        return [{**row, "seconds": ""} for row in csv.DictReader(path.read_text().splitlines())]
    return path.read_bytes()


PAGES = {"report.html", "comparison.html", "README.md", ".homing"}
"""Files that tell times and places."""


def assert_same(folder: Path, whole: Path) -> None:
    """A chain of kills changes no file."""
    ours, theirs = ({str(path.relative_to(root)): path for path in root.rglob("*")} for root in (folder, whole))
    assert ours.keys() == theirs.keys()
    compared = [name for name, path in theirs.items() if path.is_file() and path.name not in PAGES]
    assert [name for name in compared if content_of(ours[name]) != content_of(theirs[name])] == []


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("what", ["compare", "targets"])
def test_comparisons_and_several_targets_end_as_if_nobody_had_killed_them(tmp_path, what):
    problem = draw_problem(tmp_path / "pools", per_class=8)
    draw_folder(problem / "unlabelled", 3, seed=5, share_dark=0.7)
    more = ("training.steps=6", "output.cache=none", "evaluation.folds=2", "evaluation.baselines=[target_only]")
    more = (*more, f"data.unlabelled.path={problem / 'unlabelled'}")
    recipe = yaml.safe_load(small_recipe(problem, *more).to_yaml())
    if what == "targets":
        draw_folder(problem / "other", 4, seed=9, share_dark=0)
        recipe["data"]["target"] = {"a": {"path": str(problem / "target")}, "b": {"path": str(problem / "other")}}
        recipe["data"].pop("test")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    more = ("--methods", "pooled_oversampled", "--seeds", "2") if what == "compare" else ()
    verb = ("compare" if what == "compare" else "run", tmp_path / "recipe.yaml", *more, "--quiet")
    call(tmp_path / "log", ["recipes"])  # waits for the server of processes, which the next need not
    took = call(tmp_path / "log", [*verb, "--output", tmp_path / "whole"])
    last = killed_until(tmp_path / "log", verb, tmp_path / "killed", took, often(2, 30))
    assert_same(last, tmp_path / "whole")
    assert "Traceback" not in (tmp_path / "log").read_text()
