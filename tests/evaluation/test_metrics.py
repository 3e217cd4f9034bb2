"""Figures agree with scikit-learn's, and intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from homing.evaluation.metrics import confusion, metrics, per_class, wilson_interval


@pytest.fixture
def scored():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (200,), generator=generator)
    logits = torch.randn(200, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    return logits, labels


def test_figures_agree_with_scikit_learn(scored):
    logits, labels = scored
    found, predictions = metrics(logits, labels), logits.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert found["nll"] == pytest.approx(log_loss(labels, logits.double().softmax(1), labels=range(5)))
    assert found["num_test"] == 200
    assert confusion(logits, labels, 5) == confusion_matrix(labels, predictions, labels=range(5)).tolist()


def test_classes_that_do_not_occur_have_no_accuracy(scored):
    logits, labels = scored
    assert set(per_class(logits, labels, ("a", "b", "c", "d", "e"))) == {"a", "b", "c", "d"}


def test_a_sure_and_right_model_is_calibrated_and_a_sure_and_wrong_one_is_not():
    labels = torch.tensor([0, 1, 0, 1])
    sure = 50.0 * torch.nn.functional.one_hot(labels, 2)
    assert metrics(sure, labels)["ece"] == pytest.approx(0, abs=1e-9)
    assert metrics(sure, 1 - labels)["ece"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 1.0])
def test_the_interval_covers_the_truth_nearly_95_times_in_100(share):
    draws = np.random.default_rng(0).binomial(120, share, 2000)
    covered = [
        wilson_interval(hits / 120, 120)[0] <= share <= wilson_interval(hits / 120, 120)[1] + 1e-12 for hits in draws
    ]
    assert np.mean(covered) > 0.92  # Wilson's coverage wavers around 95 % with the share


def test_wilson_interval_agrees_with_a_published_value():
    # 81 of 263: [0.2553, 0.3662] (Newcombe 1998, Statistics in Medicine 17, table I, method 3)
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
