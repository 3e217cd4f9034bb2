"""Figures of images of several classes, held against scikit-learn's."""

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss

from homing.evaluation.choice import choose
from homing.evaluation.metrics import metrics
from homing.evaluation.multi_label import _Answers
from homing.evaluation.paired import paired_intervals
from homing.evaluation.per_class import absent_classes, per_class


@pytest.fixture(scope="module")
def answers():
    generator = torch.Generator().manual_seed(0)
    sets = torch.rand(80, 4, generator=generator) < 0.3
    sets[:, 3] = False  # a class that no image has
    logits = (4 * torch.randn(80, 4, generator=generator)).round() / 2 + sets  # many are alike
    return logits, sets


def test_average_precision_is_scikit_learns_under_any_counts_of_images(answers):
    logits, sets = answers
    counts = torch.randint(0, 4, (2, 80), generator=torch.Generator().manual_seed(1)).float()
    found = _Answers.of(logits, sets).average_precisions(counts)
    for row, weights in zip(found, counts, strict=True):
        for label in range(3):
            wanted = average_precision_score(sets[:, label], logits[:, label], sample_weight=weights)
            assert float(row[label]) == pytest.approx(wanted, abs=1e-6)  # counts are summed in float32
        assert row[3].isnan()


def test_figures_are_scikit_learns_and_lie_in_their_intervals(answers):
    logits, sets = answers
    found = metrics(logits, sets)
    precisions = [average_precision_score(sets[:, label], logits[:, label]) for label in range(3)]
    assert found["mean_average_precision"] == pytest.approx(sum(precisions) / 3, abs=1e-6)
    assert found["macro_f1"] == pytest.approx(f1_score(sets, logits > 0, average="macro", zero_division=0))
    assert found["micro_f1"] == pytest.approx(f1_score(sets, logits > 0, average="micro"))
    assert found["accuracy"] == pytest.approx(float(((logits > 0) == sets).all(1).double().mean()))
    shares = logits.double().sigmoid()
    losses = [log_loss(sets[:, label], shares[:, label], labels=[0, 1]) for label in range(4)]
    assert found["nll"] == pytest.approx(sum(losses))
    assert found["num_test"] == 80
    for name in ("mean_average_precision", "macro_f1", "micro_f1", "accuracy", "nll"):
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high
        assert low < high


def test_each_class_has_its_figures_and_those_without_images_have_none(answers):
    logits, sets = answers
    found = per_class(logits, sets, ("a", "b", "c", "d"))
    assert list(found) == ["a", "b", "c"]
    assert found["b"]["num_test"] == int(sets[:, 1].sum())
    assert found["b"]["f1"] == pytest.approx(f1_score(sets[:, 1], logits[:, 1] > 0))
    assert absent_classes(sets, ("a", "b", "c", "d")) == ["d"]


def test_each_class_has_its_gain_over_another_model(answers):
    logits, sets = answers
    worse = logits.clone()
    worse[:, 0] = -logits[:, 0]
    found = per_class(logits, sets, ("a", "b", "c", "d"), against=worse)
    assert found["a"]["gain"]["low"] > 0
    assert found["b"]["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_the_model_to_ship_is_chosen_by_mean_average_precision(answers):
    logits, sets = answers
    found = choose("ours", {"ours": logits, "other": logits + 4 * sets}, sets, folds=2, seed=0)
    assert found["shipped"] == "other"
    assert found["chosen_on"]["metric"] == "mean_average_precision"
    assert found["chosen_on"]["gain"]["low"] > 0


def test_a_model_against_itself_gains_nothing_and_a_better_one_does(answers):
    logits, sets = answers
    itself = paired_intervals(logits[None], logits[None], sets)
    assert all(value == {"mean": 0.0, "low": 0.0, "high": 0.0} for value in itself.values())
    better = torch.stack([logits + 4 * sets, logits + 5 * sets])
    gain = paired_intervals(better, torch.stack([logits, logits]), sets)
    assert gain["mean_average_precision"]["low"] > 0
    assert gain["nll"]["mean"] == pytest.approx(
        sum(metrics(each, sets)["nll"] for each in better) / 2 - metrics(logits, sets)["nll"]
    )
