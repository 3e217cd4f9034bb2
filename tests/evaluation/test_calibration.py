"""A temperature from held-out images: the right one, with few images a cautious one, judged without its own rows."""

from __future__ import annotations

import pytest
import torch

from homing.evaluation.calibration import calibration, fit_temperature, scores_at
from homing.evaluation.metrics import metrics
from homing.rates.learned.folds import held_out_folds


def overconfident(num_images: int, factor: float, *, seed: int = 0):
    """Logits whose probabilities are right once they are divided by `factor`, and labels drawn from those."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num_images, 4, generator=generator)
    return factor * logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_one_that_the_logits_were_made_with(factor):
    assert fit_temperature(*overconfident(4000, factor)) == pytest.approx(factor, rel=0.1)


def test_a_few_images_all_answered_right_leave_the_temperature_near_1():
    labels = torch.arange(8) % 4
    assert 0.3 < fit_temperature(3.0 * torch.nn.functional.one_hot(labels, 4), labels) < 1


def test_each_fold_is_judged_at_the_temperature_of_the_others():
    logits, labels = overconfident(60, 3.0)
    folds = list(held_out_folds(labels, 5, 0))
    found = calibration(logits, labels, folds)
    by_hand = torch.empty(60, 4, dtype=torch.float64)
    for rows in folds:
        others = torch.tensor([row for row in range(60) if row not in rows.tolist()])
        by_hand[rows] = logits[rows].double() / fit_temperature(logits[others], labels[others])
    assert {key: found[key] for key in ("nll", "ece")} == pytest.approx(scores_at(by_hand, labels))
    assert found["temperature"] == pytest.approx(fit_temperature(logits, labels))
    before = metrics(logits, labels)
    assert found["nll"] < before["nll"]
    assert found["ece"] < before["ece"]


def test_a_temperature_that_makes_nothing_better_is_none_and_says_so():
    logits, labels = overconfident(40, 1.0, seed=3)
    found = calibration(logits, labels, list(held_out_folds(labels, 5, 0)))
    assert found["temperature"] is None
    assert "no temperature" in found["reason"]


def test_a_test_fits_nothing():
    found = calibration(*overconfident(40, 3.0), None)
    assert found["temperature"] is None
    assert "data.test is given" in found["reason"]
