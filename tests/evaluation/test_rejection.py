"""Accuracy against coverage: surer answers first, ties in no order, the area by hand."""

from __future__ import annotations

import json

import pytest
import torch

from homing.evaluation.rejection import rejection


def answers(confidences: list[float], right: list[bool]):
    """Logits of two classes with these largest probabilities, and labels."""
    sure = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([sure.log(), (1 - sure).log()], dim=1), torch.tensor([0 if hit else 1 for hit in right])


def test_the_points_and_the_area_are_those_counted_by_hand():
    logits, labels = answers([0.6, 0.9, 0.7, 0.8], [False, True, False, True])
    found = rejection(logits, labels)
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert [(point["coverage"], point["num_images"]) for point in found["points"]] == [
        (1, 4),
        (0.9, 4),
        (0.8, 4),
        (0.5, 2),
    ]
    assert [point["accuracy"] for point in found["points"]] == pytest.approx([0.5, 0.5, 0.5, 1])
    assert found["curve"] == [[0.25, 1], [0.5, 1], [0.75, pytest.approx(2 / 3)], [1, 0.5]]


def test_images_that_it_is_equally_sure_of_have_no_order():
    one = rejection(*answers([0.9, 0.9, 0.9, 0.6], [True, False, False, True]))
    other = rejection(*answers([0.9, 0.9, 0.9, 0.6], [False, False, True, True]))
    assert one == other
    assert one["points"][-1]["accuracy"] == pytest.approx(1 / 3)


def test_a_single_image_and_many_are_plain_json_with_few_points():
    json.dumps(rejection(*answers([0.9], [True])), allow_nan=False)
    many = torch.linspace(0.51, 0.99, 5000).tolist()
    found = rejection(*answers(many, [True] * 5000))
    assert len(found["curve"]) <= 60
    assert found["curve"][-1] == [1, 1]
    assert found["aurc"] == pytest.approx(0, abs=1e-12)
