"""The figures of a real run in its `results.json`: every figure with its interval, gains, classes."""

from __future__ import annotations

import json

import pytest

from homing.outputs.table import results_table, summary
from homing.progress import Progress
from homing.validate import validate_data
from small_run import CLASSES, small_recipe


@pytest.fixture(scope="module")
def results(finished_run):
    return json.loads((finished_run / "results.json").read_text())


def test_every_method_has_every_figure_with_its_interval(results):
    for row in (results["target"], results["baselines"]["pooled_oversampled"]):
        assert {"accuracy", "macro_f1", "nll", "ece", "num_test", "balanced_accuracy"} <= set(row)
        for figure in ("accuracy", "balanced_accuracy", "macro_f1", "nll"):
            low, high = row[f"{figure}_interval"]
            assert low <= row[figure] <= high
        assert not {"auroc", "top5_accuracy"} & set(row)  # three classes
    assert results["metric"] == "accuracy"


def test_gains_are_told_of_every_figure_and_every_class(results):
    other = results["baselines"]["pooled_oversampled"]
    assert other["gains"]["accuracy"] == other["ours_minus_this"]
    assert other["gains"]["nll"]["mean"] == pytest.approx(results["target"]["nll"] - other["nll"])
    assert results["per_class_against"] == "pooled_oversampled"
    assert set(results["per_class"]) == set(CLASSES)
    for row in results["per_class"].values():
        assert row["is_small"] == (row["num_test"] < 10)
        assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
    assert results["classes_without_images"] == []


def test_the_table_shows_what_the_run_is_judged_by(results):
    assert "accuracy" in results_table(results).splitlines()[0]
    head, *rows = results_table(results | {"metric": "nll"}).splitlines()
    assert head.split() == ["method", "NLL", "95", "%", "interval", "accuracy", "on", "18", "test", "images"]
    losses = [float(row.split("[")[0].split()[-1]) for row in rows[:2]]
    assert losses == sorted(losses, reverse=True)  # worst first


def test_results_of_before_have_a_summary(results, tmp_path):
    kept = ("accuracy", "macro_f1", "nll", "ece", "num_test", "accuracy_interval", "ours_minus_this")
    old = {key: value for key, value in results.items() if key != "metric"}
    old["target"] = {key: value for key, value in results["target"].items() if key in kept}
    old["baselines"] = {
        name: {key: value for key, value in row.items() if key in kept} for name, row in results["baselines"].items()
    }
    assert summary(tmp_path, old) == summary(tmp_path, results)


def test_validate_refuses_a_metric_that_the_pools_cannot_have(finished_run):
    recipe = small_recipe(finished_run.parent, "evaluation.metric=auroc")
    findings = validate_data(recipe, Progress(quiet=True))
    assert findings.exit_code == 2
    assert any("auroc is for two classes, and the target has 3" in text for text in findings.refused)
