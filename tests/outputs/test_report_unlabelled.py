"""The report's section of unlabelled images: what results.json says of them, whatever it holds."""

from __future__ import annotations

import pytest

from homing.outputs.report.page import write_report
from report_run import BREAKOUT, HOSTILE, Page, pictures, results, write_run

FOUND = {
    "num_samples": 300,
    "left_out": {"test": 2, "target": 1},
    "num_counting": 212,
    "match_share": 0.91,
    "right_share": 0.774,
    "mass": 1_234.5,
    "confidence": [0] * 10 + [30] * 10,
    "wanted": [
        {"sample_id": "inbox/7.png", "guess": "dog", "probability": 0.41, "match": 0.97, "score": 0.31},
        {"sample_id": BREAKOUT, "guess": HOSTILE, "probability": None, "match": "x", "score": 0.2},
    ],
}


def page_of(folder, found) -> Page:
    run = write_run(folder / "run", results() | {"unlabelled": found})
    return Page(write_report(run, pictures).read_text(encoding="utf-8"))


def test_it_says_how_many_count_how_sure_they_are_and_what_to_label(tmp_path):
    page = page_of(tmp_path, FOUND)
    assert "Count at all 212 of 300; 3 more are in the run already" in page.text
    assert "Of the target's domain 91.0 %" in page.text
    assert "Guesses right 77.4 %" in page.text
    assert "Count as much as 1,234 source images of rate 1" in page.text
    assert "300 of 300 unlabelled images lie above 50 %" in page.text
    assert "inbox/7.png dog 41.0 % 97.0 % 0.310" in page.text
    assert BREAKOUT in page.text
    assert not [attrs for attrs in page.all("img") if "onerror" in attrs]
    assert "#unlabelled" in {attrs.get("href") for attrs in page.all("a")}


@pytest.mark.parametrize("found", [None, {}, "text"])
def test_a_run_without_them_has_no_such_section(tmp_path, found):
    page = page_of(tmp_path, found)
    assert "unlabelled" not in {attrs.get("id") for _, attrs in page.tags}


def test_what_is_missing_or_no_number_is_left_out(tmp_path):
    page = page_of(tmp_path, {"wanted": {}, "confidence": ["a", None], "left_out": [], "mass": float("nan")})
    assert "Label these next" not in page.text
    assert "Count at all –" in page.text
