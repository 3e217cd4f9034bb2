"""The report's tables and charts: order, names, ends of axes, classes and their counts."""

from __future__ import annotations

import numpy as np
import pytest

from homing.measures import MEASURES
from homing.outputs.report.axis import axis_of
from homing.outputs.report.columns import read_columns
from homing.outputs.report.curves import curves
from homing.outputs.report.figures import Line, line_figure
from homing.outputs.report.pictures import choose
from homing.outputs.report.tables import class_scores, confusion, cost
from homing.outputs.report.verdict import scores, verdict
from report_run import metrics_rows, results, score, write_run


def test_folds_are_no_methods_of_their_own_and_methods_stand_in_the_order_of_the_table():
    names = ("hierarchical", "hierarchical-fold-1", "pooled", "pooled-fold-2", "target_only")
    rows = [row | {"method": name} for name in names for row in metrics_rows()[:30]]
    drawn = next(one for one in curves(rows, "hierarchical", ["target_only", "homing", "pooled"]) if "Acc" in one.title)
    assert [label for _, label, _ in drawn.legend] == ["homing, target images", "Target only", "Both pooled"]


def test_costs_stand_in_the_order_of_the_table_under_the_names_that_people_say():
    found = results()
    found["cost"]["method_seconds"] = {"hierarchical": 1.0, "oracle": 2.0, "pooled_oversampled": 3.0}
    titles = [title for title, _ in cost(found) if title.startswith("Time of")]
    assert titles == ["Time of “Oracle (true rates)”", "Time of “homing”", "Time of “Pooled, target oversampled”"]


def test_no_axis_of_shares_goes_beyond_100_percent():
    assert axis_of([0.97, 1.0, 0.93], MEASURES["accuracy"]).high == 1
    assert axis_of([1.0], MEASURES["auroc"]).high == 1
    assert axis_of([1.2], MEASURES["nll"]).high > 1.2
    steps = np.arange(10.0)
    svg = line_figure("a", "A", [Line("a", steps, np.ones(10), 0)], "", "{:.1%}", is_small=False).svg
    assert "100 %" in svg
    assert "102" not in svg


@pytest.mark.parametrize(("count", "grid"), [(40, True), (41, False)])
def test_many_classes_have_their_worst_pairs_in_place_of_a_grid(count, grid):
    counts = np.eye(count, dtype=int) * 5
    counts[3, 7] = 9
    counts[4, 2] = 2
    names = [f"class {place}" for place in range(count)]
    found = confusion({"data": {"classes": names}, "confusion": counts.tolist()})
    assert bool(found.classes) is grid
    assert found.pairs[:2] == (("class 3", "class 7", 9, 9 / 14), ("class 4", "class 2", 2, 2 / 7))


def test_classes_have_their_gain_and_small_ones_say_so():
    gain = {"mean": 0.125, "low": -0.05, "high": 0.3}
    values = {"cat": {"accuracy": 0.5, "num_test": 8, "is_small": True, "gain": gain}, "dog": {"accuracy": 0.9}}
    cat, dog = class_scores({"per_class": values})
    assert (cat.gain, cat.gain_interval, cat.is_small) == ("+12.5", "[−5.0, +30.0]", True)
    assert (dog.gain, dog.gain_interval, dog.is_small) == (None, "", False)


def test_a_gallery_knows_how_many_of_each_class_it_was_chosen_from(tmp_path):
    rates = read_columns(write_run(tmp_path) / "rates.parquet", [])
    choice = choose("highest", "Highest rated", np.arange(50), rates)
    expected = np.bincount(rates.label.codes[:50], minlength=len(rates.label.names))
    assert choice.by_class.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("own", "other", "icon"),
    [(0.95, 0.8, "check"), (0.7, 0.9, "cross"), (0.879, 0.88, "equal"), (0.89, 0.88, "question")],
)
def test_the_icon_says_what_the_verdict_does(own, other, icon):
    found = verdict(scores({"target": score(own), "baselines": {"pooled_oversampled": score(other)}}))
    assert found.icon == icon
