"""The target's own images are in the report where the recipe asks for it, and nowhere else."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
import torch

from homing.outputs.facts import Asked
from homing.outputs.own_images import own_images
from homing.outputs.report.page import write_report
from homing.outputs.thumbnails import shown_of_problem, shown_of_recipe
from homing.pools.problem import open_problem
from report_run import Page
from small_run import CLASSES, small_recipe


@pytest.fixture(scope="module")
def recipe(finished_run):
    return small_recipe(finished_run.parent, "output.show_target=true")


@pytest.fixture(scope="module")
def problem(recipe):
    return open_problem(recipe.data, trains=True)


def test_every_class_has_its_turn_and_the_largest_losses_come_first(problem):
    labels = torch.from_numpy(problem.labels)
    logits = torch.randn(len(problem.test), 3, generator=torch.Generator().manual_seed(0))
    found = own_images(problem, labels, logits)
    assert Counter(row["label"] for row in found["target"][:3]) == dict.fromkeys(CLASSES, 1)
    assert {row["id"] for row in found["target"]} == set(problem.target.ids)
    losses = torch.nn.functional.cross_entropy(logits, labels[problem.test_rows], reduction="none")
    assert found["of"] == "test"
    assert [row["loss"] for row in found["hardest"]] == pytest.approx(losses.sort(descending=True).values.tolist())
    for row in found["hardest"]:
        place = list(problem.test.ids).index(row["id"])
        assert row["label"] == problem.test.labels[place]
        assert row["predicted"] == CLASSES[int(logits[place].argmax())]


def test_a_target_without_labels_is_shown_without(problem):
    labels = torch.full((len(problem),), -1)
    assert {row["label"] for row in own_images(problem, labels, None)["target"]} == {""}


def test_the_report_shows_them_with_pictures_from_the_pools(finished_run, recipe, problem, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    results = json.loads((finished_run / "results.json").read_text())
    logits = torch.zeros(len(problem.test), 3)
    results["own_images"] = own_images(problem, torch.from_numpy(problem.labels), logits)
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    pages = []
    for shown in (shown_of_recipe(recipe), shown_of_problem(problem, show_target=True)):
        pages.append(Page(write_report(tmp_path / "run", shown).read_text()))
    for page in pages:
        assert "Test images with the largest loss" in page.text
        tiles = [attrs for attrs in page.all("img") if "disk/" in attrs["alt"]]
        assert tiles
        assert "not found" not in page.text
    hidden = write_report(tmp_path / "run", shown_of_problem(problem, show_target=False))
    assert Page(hidden.read_text()).text.count("not found") == len(problem.target) + len(problem.test)


def test_nothing_of_the_target_is_shown_unasked(finished_run):
    assert not Asked.of(small_recipe(finished_run.parent)).show_target
    assert "own_images" not in json.loads((finished_run / "results.json").read_text())
    page = Page((finished_run / "report.html").read_text())
    assert "own-images" not in {attrs.get("id") for _, attrs in page.tags}
    assert shown_of_recipe(small_recipe(finished_run.parent)).own == {}
