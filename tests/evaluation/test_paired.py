"""Paired differences: what they average, how wide they are, and how often they hold the truth."""

import numpy as np
import pytest
import torch

from homing.evaluation.metrics import metrics
from homing.evaluation.paired import paired_intervals


def predictions(num_images=120, num_classes=4, *, seeds=1, skill=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % num_classes
    logits = torch.randn(seeds, num_images, num_classes, generator=generator)
    logits[:, torch.arange(num_images), labels] += skill
    return logits, labels


def test_means_are_differences_of_the_figures_over_seeds():
    (ours, labels), (theirs, _) = predictions(seeds=3), predictions(seeds=3, skill=0.5, seed=1)
    found = paired_intervals(ours, theirs, labels)
    for name, interval in found.items():
        each = [metrics(a, labels)[name] - metrics(b, labels)[name] for a, b in zip(ours, theirs, strict=True)]
        assert interval["mean"] == pytest.approx(np.mean(each), abs=1e-9), name
        assert interval["low"] < interval["mean"] < interval["high"], name


def test_a_model_does_not_differ_from_itself():
    logits, labels = predictions(seeds=2)
    assert all(set(interval.values()) == {0.0} for interval in paired_intervals(logits, logits, labels).values())


def test_what_two_models_share_does_not_widen_the_interval():
    logits, labels = predictions(num_images=400)
    worse = logits.clone()
    worse[0, :6] = torch.roll(worse[0, :6], 1, dims=1)
    found = paired_intervals(logits, worse, labels)["accuracy"]
    assert found["high"] - found["low"] < 0.03


def test_the_same_images_under_many_seeds_are_not_many_images():
    """Predictions that all seeds share must leave the interval as wide as one seed's."""
    (ours, labels), (theirs, _) = predictions(), predictions(skill=0.5, seed=1)
    one = paired_intervals(ours, theirs, labels)["accuracy"]
    five = paired_intervals(ours.expand(5, -1, -1), theirs.expand(5, -1, -1), labels)["accuracy"]
    assert five["high"] - five["low"] == pytest.approx(one["high"] - one["low"], rel=0.1)


def test_the_interval_holds_the_truth_nearly_95_times_in_100():
    truth = _gain(*predictions(num_images=40_000, seed=7), predictions(num_images=40_000, skill=1.0, seed=8)[0])
    held = []
    for draw in range(60):
        (ours, labels), (theirs, _) = predictions(seed=2 * draw), predictions(skill=1.0, seed=2 * draw + 1)
        found = paired_intervals(ours, theirs, labels, seed=draw)["accuracy"]
        held.append(found["low"] <= truth <= found["high"])
    assert sum(held) >= 52


def _gain(ours, labels, theirs):
    return float(((ours.argmax(2) == labels).double() - (theirs.argmax(2) == labels).double()).mean())
