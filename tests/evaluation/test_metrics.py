"""Figures agree with scikit-learn's, and intervals cover."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from homing.errors import RecipeError
from homing.evaluation.metrics import check_metric, confusion, metrics, wilson_interval
from homing.evaluation.per_class import absent_classes, per_class
from homing.pools.problem import open_problem
from homing.recipe.data import Data, PoolSpec
from small_run import draw_folder


def drawn(num_classes: int, num_images: int = 200, *, occurring: int | None = None, seed: int = 0):
    """Logits of a model with some skill, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, occurring or num_classes, (num_images,), generator=generator)
    logits = torch.randn(num_images, num_classes, generator=generator)
    return logits + 1.5 * torch.nn.functional.one_hot(labels, num_classes), labels


@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_figures_agree_with_scikit_learn(num_classes):
    logits, labels = drawn(num_classes, occurring=max(2, num_classes - 1))
    found, predictions = metrics(logits, labels), logits.argmax(1)
    shares, classes = logits.double().softmax(1), range(num_classes)
    expected = {
        "accuracy": accuracy_score(labels, predictions),
        "macro_f1": f1_score(labels, predictions, average="macro"),
        "nll": log_loss(labels, shares, labels=classes),
        "num_test": 200,
    }
    if num_classes == 2:
        expected |= {"auroc": roc_auc_score(labels, shares[:, 1])}
    if num_classes > 10:
        expected |= {"top5_accuracy": top_k_accuracy_score(labels, shares, k=5, labels=classes)}
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert {"auroc", "top5_accuracy"} & set(found) == {"auroc", "top5_accuracy"} & set(expected)
    assert confusion(logits, labels, num_classes) == confusion_matrix(labels, predictions, labels=classes).tolist()


@pytest.mark.parametrize("num_classes", [2, 5])
def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur(num_classes):
    logits, labels = drawn(num_classes, occurring=2)
    logits[:, 2:] -= 100  # scikit-learn warns of answers that no image has
    expected = balanced_accuracy_score(labels, logits.argmax(1))
    assert metrics(logits, labels)["balanced_accuracy"] == pytest.approx(expected)


def test_every_figure_but_the_calibration_error_lies_within_its_interval():
    for num_classes in (2, 12):
        found = metrics(*drawn(num_classes))
        for name in {name.removesuffix("_interval") for name in found if name.endswith("_interval")}:
            low, high = found[f"{name}_interval"]
            assert low < found[name] < high, name


def test_ties_count_half_for_the_auroc():
    scores, labels = torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0, 0.0]), torch.tensor([0, 0, 1, 1, 1, 1])
    found = metrics(torch.stack([torch.zeros(6), scores], dim=1), labels)["auroc"]
    assert found == pytest.approx(roc_auc_score(labels, scores))


def test_draws_without_one_of_the_classes_have_no_part_in_the_interval_of_the_auroc():
    logits, labels = drawn(2, num_images=12)
    labels[:] = 0
    labels[0] = 1
    low, high = metrics(logits, labels)["auroc_interval"]
    assert 0 <= low <= high <= 1  # a third of the draws lacks the only image of its class


def test_a_test_of_one_class_has_no_auroc_and_no_nan():
    logits, labels = drawn(2, num_images=12)
    found = metrics(logits, torch.zeros_like(labels))
    assert found["auroc"] is None
    assert found["auroc_interval"] is None
    json.dumps(found, allow_nan=False)


def test_classes_that_do_not_occur_have_no_accuracy_and_are_named():
    logits, labels = drawn(5, occurring=4)
    assert set(per_class(logits, labels, ("a", "b", "c", "d", "e"))) == {"a", "b", "c", "d"}
    assert absent_classes(labels, ("a", "b", "c", "d", "e")) == ["e"]


def test_gains_of_classes_are_differences_of_recall_and_add_up_to_the_gain_in_balanced_accuracy():
    (ours, labels), (theirs, _) = drawn(4), drawn(4, seed=1)
    found = per_class(ours, labels, "abcd", against=theirs)
    for index, row in enumerate(found.values()):
        own = labels == index
        recall = [float((logits.argmax(1) == labels)[own].double().mean()) for logits in (ours, theirs)]
        assert row["gain"]["mean"] == pytest.approx(recall[0] - recall[1])
        assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
        assert not row["is_small"]
    gain = metrics(ours, labels)["balanced_accuracy"] - metrics(theirs, labels)["balanced_accuracy"]
    assert np.mean([row["gain"]["mean"] for row in found.values()]) == pytest.approx(gain)


def test_the_interval_of_a_class_is_that_of_its_drawn_images():
    (ours, labels), (theirs, _) = drawn(2, 120), drawn(2, 120, seed=1)
    found = per_class(ours, labels, "ab", against=theirs)["a"]
    own = labels == 0
    differences = (ours.argmax(1) == 0)[own].double() - (theirs.argmax(1) == 0)[own].double()
    generator = np.random.default_rng(1)
    means = [generator.choice(differences.numpy(), len(differences)).mean() for _ in range(4000)]
    assert [found["gain"]["low"], found["gain"]["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.03)


def test_a_class_of_nine_images_is_said_to_be_small():
    labels = torch.tensor([0] * 9 + [1] * 10)
    found = per_class(torch.zeros(19, 2), labels, "ab")
    assert [row["is_small"] for row in found.values()] == [True, False]


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


def test_the_interval_of_the_auroc_covers_the_truth_nearly_95_times_in_100():
    truth, held = 0.5 * (1 + math.erf(1.5 / 2)), 0  # P(N(1.5, 1) > N(0, 1)): Φ(1.5/√2)
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(100) % 2
        scores = torch.randn(100, generator=generator) + 1.5 * labels
        low, high = metrics(torch.stack([torch.zeros(100), scores], dim=1), labels)["auroc_interval"]
        held += low <= truth <= high
    assert held >= 52


@pytest.mark.parametrize(
    ("metric", "shapes", "message"),
    [
        ("auroc", ("bar", "disk", "ring"), r"auroc is for two classes, and the target has 3.*balanced_accuracy"),
        ("auroc", ("bar", "disk"), r"data\.test has none of 'disk'"),
        ("top5_accuracy", ("bar", "disk", "ring"), "more than 10 classes, and there are 3"),
    ],
)
def test_a_metric_that_a_run_cannot_have_is_refused(tmp_path, metric, shapes, message):
    for seed, role in enumerate(("source", "target", "test")):
        draw_folder(tmp_path / role, 2, seed, share_dark=1)
        for shape in {"bar", "disk", "ring"} - set(shapes[:1] if role == "test" else shapes):
            for path in (tmp_path / role / shape).iterdir():
                path.unlink()
            (tmp_path / role / shape).rmdir()
    data = Data(**{role: PoolSpec(path=str(tmp_path / role)) for role in ("source", "target", "test")})
    problem = open_problem(data, trains=True)
    with pytest.raises(RecipeError, match=message):
        check_metric(metric, problem)
    check_metric("balanced_accuracy", problem)
