"""A comparison over seeds: every method on the same images, gains paired against the reference."""

from __future__ import annotations

import csv
import json

import pytest

from homing.compare import as_text, compare
from small_run import draw_problem, small_recipe


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    recipe = small_recipe(draw_problem(folder / "pools"), "training.steps=4")
    methods = ("pooled_oversampled", "target_only")
    return compare(recipe, methods, 2, folder / "out", quiet=True), folder / "out", recipe


def test_each_method_has_its_mean_spread_and_paired_gain(compared):
    table, folder, _ = compared
    rows = {row["method"]: row for row in table["methods"]}
    assert set(rows) == {"hierarchical", "pooled_oversampled", "target_only"}
    runs = [json.loads((folder / f"seed-{seed}" / "results.json").read_text()) for seed in (0, 1)]
    ours = [run["target"]["accuracy"] for run in runs]
    theirs = [run["baselines"]["pooled_oversampled"]["accuracy"] for run in runs]
    assert rows["hierarchical"]["accuracy"] == pytest.approx(sum(ours) / 2)
    assert rows["hierarchical"]["gain"]["mean"] == pytest.approx((sum(ours) - sum(theirs)) / 2)
    assert "gain" not in rows["pooled_oversampled"]


def test_the_files_hold_what_is_printed(compared):
    table, folder, _ = compared
    assert json.loads((folder / "comparison.json").read_text()) == json.loads(json.dumps(table))
    with (folder / "comparison.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row["method"] for row in table["methods"]]
    assert "2 seeds, 18 images each" in as_text(table)


def test_a_finished_comparison_is_not_run_again(compared):
    table, folder, recipe = compared
    again = compare(recipe, ("pooled_oversampled", "target_only"), 2, folder, resume=True, quiet=True)
    assert again == table
