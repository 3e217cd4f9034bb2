"""Trackers get what metrics.jsonl gets, of the run's own method; metrics.jsonl is always written."""

import json

import pytest

from homing.errors import RecipeError
from homing.flow import run
from homing.training import trackers
from small_run import draw_problem, small_recipe


def events(folder) -> dict[str, dict[int, float]]:
    """Tag → step → value, out of TensorBoard's event files below a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in {file.parent for file in folder.rglob("events.*")}:
        reader = EventAccumulator(str(path))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            found[tag] = {event.step: event.value for event in reader.Scalars(tag)}
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard itself
def test_tensorboard_holds_the_rows_of_the_runs_own_method_and_its_scores(tmp_path):
    folder = draw_problem(tmp_path)
    wanted = ("output.trackers=[tensorboard]", "evaluation.baselines=[pooled]", "rates.method=uniform")
    result = run(small_recipe(folder, *wanted, "training.steps=6"), tmp_path / "run", quiet=True)
    found = events(tmp_path / "run" / "trackers")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    own = {row["step"]: row for row in rows if row["method"] == "uniform"}
    assert {row["method"] for row in rows} == {"uniform", "pooled"}
    for key in ("loss", "learning_rate", "effective_sample_size"):
        assert found[f"train/{key}"] == pytest.approx({step: row[key] for step, row in own.items()}, rel=1e-6)
    assert found["target/accuracy"] == pytest.approx({6: result.results["target"]["accuracy"]})


def test_a_missing_package_is_a_mistake_of_the_recipe_and_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name != "tensorboard" else object())
    recipe = small_recipe(tmp_path, "output.trackers=[tensorboard, wandb, trackio]")
    with pytest.raises(RecipeError, match=r"wandb, trackio cannot be imported; pip install 'homing\[wandb,trackio\]'"):
        run(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
