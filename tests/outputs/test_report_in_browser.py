"""The report of a run whose names are attacks, in a real browser: no dialog, no request, names as text."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from chromium import Chromium
from homing.flow import run
from small_run import CLASSES, draw_problem, small_recipe

LABELS = {
    "bar": "<script>alert('label')</script>",
    "disk": "\"><img src=http://192.0.2.1/a.png onerror=alert('img')>",
    "ring": "</script><svg onload=alert('svg')>",
}
NAME = "{}<img src=x onerror=alert('name')>'\" onmouseover=alert(1) =1+1.png"


def rename(pool: Path) -> None:
    """The same pictures under hostile names, with hostile labels in the pool's table."""
    with (pool / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label"])
        for shape in CLASSES:
            for path in sorted((pool / shape).iterdir()):
                path.rename(path.with_name(NAME.format(path.stem)))
                writer.writerow([f"{shape}/{NAME.format(path.stem)}", LABELS[shape]])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of a run over hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    problem = draw_problem(folder / "pools", per_class=6)
    for pool in ("source", "target", "test"):
        rename(problem / pool)
    recipe = small_recipe(problem, "training.steps=2", "name=<script>alert('recipe')</script>")
    return run(recipe, folder / "run", quiet=True).folder


def test_hostile_names_of_a_real_run_are_escaped_in_its_report(hostile):
    page = (hostile / "report.html").read_text()
    assert page.count("<script") == 1  # the page's own
    assert "&lt;script&gt;alert(" in page
    assert "<img src=x" not in page
    assert "<svg onload" not in page


@pytest.mark.chromium
def test_a_picture_opens_large_and_whole_and_closes_again(hostile):
    with Chromium() as browser:
        browser.open(hostile / "report.html")  # has pressed every button
        browser.evaluate("document.getElementById('large').close()")
        browser.evaluate("document.querySelector('button.frame').click()")
        small, big = (f"document.querySelector('{where} img')" for where in ("button.frame", "dialog[open]"))
        assert browser.evaluate(f"{big}.src === {small}.src")
        assert browser.evaluate(f"{big}.clientWidth > 3 * {small}.clientWidth")
        browser.evaluate("document.querySelector('dialog button').click()")
        assert browser.evaluate("document.querySelector('dialog[open]') === null")


@pytest.mark.chromium
def test_the_report_of_hostile_names_opens_no_dialog_and_asks_for_nothing(hostile, tmp_path):
    control = tmp_path / "control.html"
    control.write_text("<title>c</title><script>alert('here')</script><img src=http://192.0.2.1/a.png>")
    with Chromium() as browser:
        seen = browser.open(control)  # the same eyes see what there is to see
        assert seen.dialogs == ["here"]
        assert seen.requests == ["http://192.0.2.1/a.png"]
        seen = browser.open(hostile / "report.html")
    assert seen.dialogs == []
    assert seen.requests == []
    assert "<script>alert('recipe')</script>" in seen.title + seen.text
    assert LABELS["bar"] in seen.text
