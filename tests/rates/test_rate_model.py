from dataclasses import replace

import pytest
import torch
from gaussian_domains import NUM_CLASSES, described, hidden_matches

from homing.rates.learned.balance import LEAST_ROWS, balanced_within_classes, spread_within_classes
from homing.rates.learned.plan import RatePlan, effective_sample_size
from homing.rates.learned.rate_model import (
    DESCRIPTORS,
    Setting,
    candidate_settings,
    class_presence,
    log_prior,
    rates_of,
    weight_ladder,
)


def class_means(rates, labels):
    return torch.stack([rates[labels == label].mean() for label in labels.unique()])


def test_rates_have_mean_one_within_each_class():
    evidence = hidden_matches(seed=0, wrong=0.3)
    settings = [Setting(10, 1, 0), Setting(10, 30, 0), Setting(1, 1, 1), Setting(3, 10, 1)]
    rates = rates_of(settings, described(evidence), evidence)
    assert rates.shape == (4, evidence.num_source)
    assert (rates >= 0).all()
    for row in rates:
        torch.testing.assert_close(class_means(row, evidence.source_labels), torch.ones(NUM_CLASSES))


def of_classes(evidence, labels):
    return replace(
        evidence, target_features=evidence.target_features[: len(labels)], target_labels=torch.tensor(labels)
    )


def test_classes_that_the_target_lacks_count_less_the_more_images_say_so():
    evidence = hidden_matches(seed=5)
    everything = class_presence(evidence)
    few, many = class_presence(of_classes(evidence, [0, 0, 1, 1])), class_presence(of_classes(evidence, [0, 1] * 8))
    torch.testing.assert_close(everything, torch.ones(NUM_CLASSES))
    torch.testing.assert_close(few, torch.tensor([1.0, 1.0, 0.2, 0.2]))  # (0 + 1) / (4 + 1), over 2 classes, times 2
    assert many[2] == pytest.approx(1 / 17)
    rates = rates_of([Setting(10, 10, 1), Setting(10)], described(evidence), of_classes(evidence, [0, 0, 1, 1]))
    torch.testing.assert_close(class_means(rates[0], evidence.source_labels), few)
    torch.testing.assert_close(rates[1], torch.ones(evidence.num_source))  # plain pooling stays what it is


def test_a_target_of_one_image_a_class_says_nothing_about_missing_classes():
    torch.testing.assert_close(class_presence(of_classes(hidden_matches(seed=6), [0, 1])), torch.ones(NUM_CLASSES))


def test_rates_too_small_to_be_told_apart_are_as_if_they_were_nothing():
    raw = torch.cat([torch.full((20,), 1e-5) ** 8, torch.linspace(0.5, 1.5, 20)])  # 1e-40 has few of its digits
    rates, _ = spread_within_classes(raw, torch.tensor([0] * 20 + [1] * 20), 2)
    torch.testing.assert_close(rates[:20], torch.ones(20))
    torch.testing.assert_close(rates[20:].mean(), torch.tensor(1.0))


def test_no_class_rests_on_a_handful_of_rows():
    labels = torch.tensor([0] * 200 + [1] * 4 + [2] * 200)
    raw = torch.cat([torch.full((200,), 1e-4), torch.tensor([5.0, 0, 0, 0]), torch.linspace(0.5, 1.5, 200)])
    raw[:2] = 1.0
    rates, uniform = spread_within_classes(raw, labels, 3)
    sizes = [effective_sample_size(rates[labels == label]) for label in range(3)]
    assert sizes[:2] == pytest.approx([LEAST_ROWS, 4], rel=1e-3)
    torch.testing.assert_close(class_means(rates, labels), torch.ones(3))
    assert rates[:2].min() > 10 * rates[2]  # still ranked
    assert uniform[2] == 0  # what is spread already is left alone
    torch.testing.assert_close(rates[labels == 2], balanced_within_classes(raw, labels, 3)[labels == 2])


def test_lift_one_and_nothing_let_go_is_uniform():
    evidence = hidden_matches(seed=1, wrong=0.3)
    rates = rates_of([Setting(10, 1, 0)], described(evidence), evidence)
    torch.testing.assert_close(rates, torch.ones(1, evidence.num_source))


def test_every_setting_is_uniform_where_nothing_matches_and_labels_are_right():
    evidence = hidden_matches(seed=2, hidden=0, shift=4.0)
    rates = rates_of([Setting(10, 30, 1)], described(evidence), evidence)
    assert (rates - 1).abs().max() < 0.05


def test_a_descriptor_that_is_not_named_has_no_influence():
    evidence = hidden_matches(seed=3, wrong=0.3)
    setting = [Setting(10, 30, 1)]
    without_likeness = described(evidence, ("label_consistency",))
    without_consistency = described(evidence, ("target_likeness",))
    assert without_likeness.likeness.match.sum() == 0
    assert (without_consistency.consistency.right == 1).all()
    torch.testing.assert_close(rates_of(setting, described(evidence, ()), evidence), torch.ones(1, evidence.num_source))


def test_a_class_with_one_row_keeps_rate_one():
    labels = torch.tensor([0, 0, 0, 1])
    rates = balanced_within_classes(torch.tensor([1.0, 2.0, 3.0, 0.2]), labels, 3)
    torch.testing.assert_close(rates, torch.tensor([0.5, 1.0, 1.5, 1.0]))


def test_a_class_whose_rates_are_all_zero_is_left_as_it_is():
    rates = balanced_within_classes(torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0, 0, 1]), 2)
    assert rates.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("rates", "expected"), [([1.0, 1.0, 1.0], 3.0), ([3.0, 0.0, 0.0], 1.0), ([0.0, 0.0, 0.0], 0.0)]
)
def test_effective_sample_size_counts_the_rows_that_count(rates, expected):
    assert RatePlan(torch.tensor(rates), 1.0).effective_sample_size == pytest.approx(expected)


@pytest.mark.parametrize(("num_source", "num_target"), [(3000, 35), (10_000_000, 100), (100, 100), (20, 4000)])
def test_target_weights_reach_from_pooling_to_an_equal_share(num_source, num_target):
    ladder = weight_ladder(num_source, num_target)
    assert ladder[0] == 1.0
    assert ladder[-1] == pytest.approx(max(10.0, num_source / num_target), abs=0.01)
    assert list(ladder) == sorted(ladder)


def test_uniform_rates_at_every_target_weight_are_among_the_candidates():
    settings = candidate_settings(DESCRIPTORS, 3000, 35, None)
    assert {Setting(weight) for weight in weight_ladder(3000, 35)} <= set(settings)
    assert len(set(settings)) == len(settings)


def test_the_prior_is_highest_in_the_middle():
    settings = candidate_settings(DESCRIPTORS, 3000, 35, None)
    best = settings[int(log_prior(settings, 3000, 35).argmax())]
    middle = weight_ladder(3000, 35)[2]
    assert (best.target_weight, best.match_lift) == (middle, middle)
    assert best.let_go > 0
