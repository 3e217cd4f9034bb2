"""A comparison over seeds: every method on the same images, gains paired against the reference."""

from __future__ import annotations

import csv
import json
import re
import shutil
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from homing.cli.app import app
from homing.compare import as_text, compare, side_by_side
from homing.errors import CheckpointError, DataError, RecipeError
from homing.evaluation.metrics import metrics
from homing.outputs.report.compared import compared_scores, comparison_page
from homing.outputs.report.verdict import verdict
from report_run import Page
from small_run import draw_problem, small_recipe

METHODS = ("pooled_oversampled", "target_only", "sequential", "l2rw", "meta_weight_net", "instance")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    recipe = small_recipe(draw_problem(folder / "pools"), "training.steps=4")
    methods = METHODS
    return compare(recipe, methods, 2, folder / "out", quiet=True), folder / "out", recipe


def test_each_method_has_its_mean_spread_and_paired_gain(compared):
    table, folder, _ = compared
    rows = {row["method"]: row for row in table["methods"]}
    assert set(rows) == {"hierarchical", *METHODS}
    runs = [json.loads((folder / f"seed-{seed}" / "results.json").read_text()) for seed in (0, 1)]
    ours = [run["target"]["accuracy"] for run in runs]
    theirs = [run["baselines"]["pooled_oversampled"]["accuracy"] for run in runs]
    assert rows["hierarchical"]["accuracy"] == pytest.approx(sum(ours) / 2)
    assert rows["hierarchical"]["gain"]["accuracy"]["mean"] == pytest.approx((sum(ours) - sum(theirs)) / 2)
    assert "gain" not in rows["pooled_oversampled"]


def test_the_files_hold_what_is_printed(compared):
    table, folder, _ = compared
    assert json.loads((folder / "comparison.json").read_text()) == json.loads(json.dumps(table))
    with (folder / "comparison.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row["method"] for row in table["methods"]]
    text = as_text(table)
    assert "2 seeds, 18 images each" in text
    for words in ("→ homing", "Pooled, target oversampled", "balanced accuracy", "macro F1", "NLL"):
        assert words in text


def test_the_picture_shows_every_seed_of_every_method(compared):
    table, folder, _ = compared
    picture = ElementTree.parse(folder / "comparison.svg")
    texts = ["".join(node.itertext()).strip() for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    for title in ("Pooled, target oversampled", "Target only", "L2RW"):
        assert title in texts
    dots = [node for node in picture.iter("{http://www.w3.org/2000/svg}use") if "fill-opacity" in node.get("style", "")]
    assert len(dots) == 2 * len(table["methods"])


def test_the_verdict_and_the_order_go_by_the_metric_of_the_recipe():
    generator = torch.Generator().manual_seed(0)
    labels, results, predictions = torch.arange(60) % 3, [], []
    right = 4.0 * torch.nn.functional.one_hot(labels, 3)
    for seed in range(2):
        noise = torch.randn(60, 3, generator=generator)
        logits = {"hierarchical": right + noise, "pooled_oversampled": 9 * (right + noise)}  # alike but for NLL
        logits["pooled_oversampled"][:6] *= -1
        scores = {name: metrics(each, labels) for name, each in logits.items()}
        predictions.append({**logits, "labels": labels})
        cost = {"method_seconds": dict.fromkeys(logits, 1.0), "method_gradients": dict.fromkeys(logits, 10)}
        results.append(
            {"method": "hierarchical", "metric": "nll", "seed": seed, "target": scores["hierarchical"], "cost": cost}
            | {"baselines": {"pooled_oversampled": scores["pooled_oversampled"]}, "versions": {}}
        )
    table = side_by_side(results, predictions)
    assert table["metric"] == "nll"
    assert [row["method"] for row in table["methods"]] == ["hierarchical", "pooled_oversampled"]
    found = verdict(compared_scores(table))
    assert found.title == "Worth it"
    assert "NLL" in found.text
    assert table["methods"][1]["gains"]["nll"]["high"] < 0


def test_the_page_shows_verdict_every_seed_and_cost_and_asks_nothing_of_the_network(compared):
    table, folder, _ = compared
    text = (folder / "comparison.html").read_text(encoding="utf-8")
    page = Page(text)
    assert verdict(compared_scores(table)).title in page.text
    assert {"methods", "seeds", "cost", "table-seeds"} <= {attrs.get("id") for _, attrs in page.tags}
    for row in table["methods"]:
        assert all(f"{100 * value:.1f} %" in page.text for value in row["accuracies"])
        assert f"{row['gradients']:,.0f}" in page.text
    assert len([attrs for attrs in page.all("i") if attrs.get("class") == "dot faint"]) == 2 * len(table["methods"])
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    hostile = comparison_page("<script>alert(1)</script>", table)
    assert hostile.count("<script") == 1
    assert "<script>alert(1)</script>" in Page(hostile).text


def test_a_finished_comparison_is_not_run_again(compared):
    table, folder, recipe = compared
    again = compare(recipe, METHODS, 2, folder, resume=True, quiet=True)
    assert again == table


def test_seeds_that_saw_other_pictures_are_not_held_against_each_other(tmp_path):
    pools, out = draw_problem(tmp_path / "pools"), tmp_path / "out"
    recipe = small_recipe(pools, "training.steps=2", "model.trainable=head", "rates.method=uniform")
    compare(recipe, ["pooled"], 1, out, quiet=True)
    shutil.copy(pools / "test/bar/000.png", pools / "test/disk/000.png")
    with pytest.raises(CheckpointError, match=r"seed-0, .*seed-1: the test changed between these runs"):
        compare(recipe, ["pooled"], 2, out, resume=True, quiet=True)
    shutil.rmtree(out / "seed-0")  # as it says
    assert compare(recipe, ["pooled"], 2, out, resume=True, quiet=True)["seeds"] == [0, 1]
    assert compare(recipe, ["pooled"], 1, out, overwrite=True, quiet=True)["seeds"] == [0]


def test_a_page_of_somebody_else_is_not_replaced_by_a_comparison(compared, tmp_path):
    _, folder, recipe = compared
    (tmp_path / "comparison.html").write_text("mine")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RecipeError, match=r"comparison.html: is there already; give another --output"):
            compare(recipe, METHODS, 2, tmp_path, quiet=True, **how)
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.html"]
    with pytest.raises(RecipeError, match=r"comparison.json: is there already"):
        compare(recipe, METHODS, 2, folder, quiet=True)


def test_no_method_takes_more_gradients_of_training_images_than_another(compared):
    rows = {row["method"]: row for row in compared[0]["methods"]}
    budget = rows["pooled_oversampled"]["gradients"]
    assert budget == 4 * 8  # steps, batch size
    for name in ("target_only", "sequential", "hierarchical"):
        assert rows[name]["gradients"] <= budget
    for name in ("l2rw", "meta_weight_net", "instance"):  # with the guide's, told but not held against them
        assert budget <= rows[name]["gradients"] <= budget + 4 * 2


def test_the_report_of_each_seed_shows_every_method_with_its_interval(compared):
    page = (compared[1] / "seed-0" / "report.html").read_text(encoding="utf-8")
    table = page[page.index('id="table-comparison"') :]
    table = table[: table.index("</table>")]
    for title in ("Pooled, target oversampled", "Target only", "Source, then target", "L2RW", "Meta-Weight-Net"):
        assert title in table
    assert table.count('class="chart"') == 2 + len(METHODS)  # the head, this run, the others


@pytest.mark.parametrize(
    ("methods", "message"), [("pooled,magic", "magic"), ("oracle", "needs data.truth"), ("pooled,pooled,", None)]
)
def test_methods_that_cannot_be_run_are_refused_before_anything_is_done(tmp_path, methods, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {source: {path: a}, target: {path: b}}\ntraining: {steps: 1}\n")
    result = CliRunner().invoke(app, ["compare", str(recipe), "--methods", methods, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    if message is not None:
        assert isinstance(result.exception, RecipeError)
        assert message in str(result.exception)
    else:
        assert isinstance(result.exception, DataError)  # the pools are looked for only then


UNLABELLED = ("data.target.labels=none", "data.test=null")


@pytest.mark.parametrize(
    ("changes", "methods", "message"),
    [
        ((), ("target_only",), r"--seeds: the last of 3 seeds would be 2147483648, .* 2147483645"),
        (("training.epochs=0", "training.steps=null"), (), "trains nothing that could be compared"),
        (UNLABELLED, (), "no labelled images to measure on; give a labelled data.test"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_done(tmp_path, changes, methods, message):
    recipe = small_recipe(tmp_path, *(changes or ["seed=2147483646"]))
    with pytest.raises(RecipeError, match=message):
        compare(recipe, methods, 3, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
