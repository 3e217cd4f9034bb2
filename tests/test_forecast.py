"""How long a run takes, and a run that may take so long."""

from __future__ import annotations

import json
import re

import pytest

import homing.progress as progress_module
from homing.flow import run
from homing.forecast import Forecast, duration
from homing.outputs.ownership import MARK
from homing.progress import Progress
from set_pools import draw_set_problem, set_recipe
from small_run import draw_problem, small_recipe


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_rest_of_a_run_is_told_by_the_steps_so_far():
    clock = Clock()
    forecast = Forecast([400, 400, 400], clock=clock)
    forecast.begin()
    forecast.did(100)  # by an earlier attempt
    told = []
    for _ in range(10):
        clock.now += 30 if not clock.now else 0.5  # the first one warms up
        forecast.did(1)
        told.append(forecast.news())
    assert forecast.seconds_left() == pytest.approx(0.5 * (1200 - 110))
    assert [text for text in told if text] == ["about 9 min: 3 trainings of 400 steps, 0.5 s a step"]


def test_a_scan_guesses_what_comes_after_it():
    forecast = Forecast([400] * 3, images=32, trainable="all")
    assert forecast.before(180, 0.01) == "about 22 min: scan 3 min, then 3 trainings of 400 steps"
    assert forecast.before(170, 0.01) == ""  # once
    started = Forecast([400, 0], images=32, trainable="all")
    assert started.before(180, 0.01).endswith("then 1 training of 400 steps")
    assert Forecast([400], images=32, trainable="head").before(20, 0.01) == ""
    assert Forecast([400], minutes=30).before(120, 0.01) == "about 32 min: scan 2 min, then trainings within 30 min"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59, "59 s"), (59.7, "1 min"), (5400, "90 min"), (9000, "2.5 h"), (1e6, "11.6 days")],
)
def test_durations_are_said_as_people_would(seconds, said):
    assert duration(seconds) == said


def test_a_log_has_a_line_every_few_seconds_with_loss_and_what_is_left(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", clock)
    progress = Progress()
    progress.expect(Forecast([100, 100], clock=clock))
    with progress.training("homing", 100, lambda: "loss 0.5") as advance:
        advance(0)
        for _ in range(100):
            clock.now += 0.6
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "about 2 min: 2 trainings of 100 steps, 0.6 s a step"
    assert lines[1] == "homing: 9 of 100, about 55 s left, loss 0.5, run: 2 min left"
    assert 8 <= len(lines) <= 14
    assert lines[-1] == "homing: done in 60.0 s"
    with progress.training("Target only", 100, lambda: "loss 0.5") as advance:
        for _ in range(100):
            clock.now += 0.9
            advance(1)
    assert "run:" not in capsys.readouterr().err  # the last training: two numbers for one thing could differ


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


def test_a_budget_becomes_one_number_of_steps_for_every_method_and_attempt(problem, tmp_path, capsys):
    fast = ("model.trainable=head", "rates.method=uniform", "training.minutes=0.02", "output.checkpoint_every=500")
    recipe = small_recipe(problem, *fast, "evaluation.baselines=[pooled]")
    folder = run(recipe, tmp_path / "run").folder
    (steps, trainings) = re.search(
        r"takes ([\d,]+) steps of .* each of (\d+) trainings", capsys.readouterr().err
    ).groups()
    steps = int(steps.replace(",", ""))
    assert trainings == "2"
    assert json.loads((folder / MARK).read_text())["steps"] == steps
    assert last_steps(folder) == {"uniform": steps, "pooled": steps}
    more = small_recipe(problem, *fast, "evaluation.baselines=[pooled, source_only]")
    run(more, folder, resume=True, quiet=True)
    assert last_steps(folder) == {"uniform": steps, "pooled": steps, "source_only": steps}


def last_steps(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {row["method"]: row["step"] for row in rows}


def test_a_budget_is_shared_by_what_takes_steps(problem, tmp_path, capsys):
    recipe = small_recipe(problem, "rates.method=probe", "training.minutes=0.02")
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    capsys.readouterr()
    fast = ("model.trainable=head", "output.checkpoint_every=500")
    recipe = small_recipe(
        problem, *fast, "rates.method=uniform", "training.minutes=0.02", "evaluation.baselines=[probe]"
    )
    folder = run(recipe, tmp_path / "both").folder
    assert re.search(r"takes [\d,]+ steps of .* each of 1 trainings? ", capsys.readouterr().err)
    assert set(last_steps(folder)) == {"uniform"}


def test_a_budget_of_images_with_several_labels_times_their_own_loss(tmp_path):
    recipe = set_recipe(draw_set_problem(tmp_path), "training.steps=null", "training.minutes=0.02", *UNIFORM)
    assert run(recipe, tmp_path / "run", quiet=True).results["target"]["num_test"] == 24


UNIFORM = ("rates.method=uniform", "training.target_weight=2", "output.checkpoint_every=500")


def test_a_budget_below_an_epoch_is_told_and_what_fits_is_trained(problem, tmp_path, capsys):
    recipe = small_recipe(problem, "model.trainable=head", "rates.method=uniform", "training.minutes=1e-6")
    folder = run(recipe, tmp_path / "run").folder
    assert "takes 1 step of" in (told := capsys.readouterr().err)
    assert "less than one epoch, which has 21: raise training.minutes" in told
    assert last_steps(folder) == {"uniform": 1}
