"""Guessed labels of unlabelled images: right as often as they say, of no weight where images are of another domain."""

from __future__ import annotations

import pytest
import torch
from gaussian_domains import NUM_CLASSES, draw_domain, hidden_matches

from homing.errors import DataError
from homing.rates.learned.blocks import HeldFeatures
from homing.rates.learned.guesses import guess_labels, guess_rates
from homing.rates.learned.learner import WIDTH, learn_rates
from homing.rates.learned.wanted import wanted_labels

OURS, FOREIGN = 240, 240


@pytest.fixture(scope="module")
def known():
    """Evidence, its plan and projection, unlabelled features (the foreign ones behind), and the true labels of ours."""
    evidence = hidden_matches(seed=3)
    generator = torch.Generator().manual_seed(9)
    ours, truth = draw_domain(OURS, 0.6, 2.0, generator)
    foreign, _ = draw_domain(FOREIGN, 0.3, -3.0, generator)
    return evidence, learn_rates(evidence), evidence.projection(WIDTH), torch.cat([ours, foreign]), truth


def guesses_of(known, features, **settings):
    evidence, plan, projection, *_ = known
    weight = settings.pop("target_weight", plan.target_weight)
    return guess_labels(evidence, plan.rates, weight, features, projection=projection, **settings)


def test_guesses_are_right_about_as_often_as_they_say(known):
    found = guesses_of(known, known[3][:OURS])
    right = found.labels == known[4]
    assert right.float().mean() > 0.5  # by the true means: 0.75
    assert abs(float(found.right.mean()) - float(right.float().mean())) < 0.15
    assert found.right[right].mean() > found.right[~right].mean()
    assert found.match.mean() > 0.5


def test_images_of_another_domain_count_for_nothing(known):
    found = guesses_of(known, known[3])
    assert found.match[OURS:].mean() < 0.1 < 0.5 < found.match[:OURS].mean()
    assert found.rates[OURS:].sum() < 0.05 * found.rates.sum()


def test_a_pool_that_is_foreign_as_a_whole_counts_for_nothing(known):
    assert guesses_of(known, known[3][OURS:]).rates.sum() < 0.05 * FOREIGN


def test_images_like_those_of_the_source_count_for_nothing(known):
    of_source, _ = draw_domain(FOREIGN, 0.0, 0.0, torch.Generator().manual_seed(4))
    found = guesses_of(known, torch.cat([known[3][:OURS], of_source]))
    assert found.match[OURS:].mean() < 0.1 < 0.5 < found.match[:OURS].mean()


def test_images_of_a_domain_that_the_source_is_of_too_count_as_well():
    evidence = hidden_matches(seed=5, hidden=400, others=0)
    ours, _ = draw_domain(OURS, 0.6, 2.0, torch.Generator().manual_seed(6))
    rates, projection = torch.ones(evidence.num_source), evidence.projection(WIDTH)
    assert guess_labels(evidence, rates, 5.0, ours, projection=projection).match.mean() > 0.5


def test_no_guess_counts_more_than_a_target_image_nor_all_of_them_more_than_half_the_target_or_the_source(known):
    evidence, plan, _, features, _ = known
    found = guesses_of(known, features)
    assert 0 < found.rates.max() <= plan.target_weight
    assert found.rates.sum() <= 0.5 * plan.target_weight * evidence.num_target * 1.001
    assert guesses_of(known, features, target_weight=1e4).rates.sum() <= evidence.num_source * 1.001
    assert not guesses_of(known, features, target_weight=0.0).rates.any()


def test_a_class_that_is_guessed_too_often_gets_its_share(known):
    evidence = known[0]
    labels = (torch.arange(100) % 10 >= 7) * (1 + torch.arange(100) % 3)  # seven of ten are guessed to be of class 0
    ones = torch.ones(100)
    rates = guess_rates(
        labels,
        ones,
        ones,
        target_weight=3.0,
        source_labels=evidence.source_labels,
        target_labels=evidence.target_labels.repeat(20),  # enough that all guesses together are not too many
        num_classes=NUM_CLASSES,
    )
    mass = torch.stack([rates[labels == label].sum() for label in range(NUM_CLASSES)])
    assert mass[0] == pytest.approx(3.0 * 100 / NUM_CLASSES, rel=0.01)
    assert (rates[labels > 0] == 3.0).all()


def test_blocks_of_features_give_the_same_as_a_tensor(known):
    whole, blocks = guesses_of(known, known[3]), guesses_of(known, HeldFeatures(known[3]))
    for name, values in whole.tensors().items():
        assert torch.equal(values, blocks.tensors()[name])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_few_images_are_guessed_too(known, count):
    found = guesses_of(known, known[3][:count])
    assert [len(values) for values in found.tensors().values()] == [count] * 4
    assert all(values.isfinite().all() for values in found.tensors().values())


def test_features_that_are_not_finite_are_told(known):
    broken = known[3].clone()
    broken[7, 3] = torch.nan
    with pytest.raises(DataError, match=r"unlabelled rows? are not finite \(first: row 7\)"):
        guesses_of(known, broken)


def test_what_to_label_is_uncertain_of_the_domain_and_spread(known):
    features = torch.cat([known[3], known[3]])  # each picture twice: one of them is enough
    once = guesses_of(known, known[3])
    found = type(once)(**{name: torch.cat([values, values]) for name, values in once.tensors().items()})
    wanted = wanted_labels(found, features, known[2], count=20)
    rows = torch.tensor([row for row, _ in wanted]) % len(known[3])
    assert len(rows.unique()) == 20
    assert (rows < OURS).float().mean() > 0.9
    assert once.right[rows].mean() < once.right[:OURS].mean()
    scores = [score for _, score in wanted]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0
    assert sum(scores) == pytest.approx(1)


@pytest.mark.parametrize(("count", "chosen"), [(1, 1), (3, 3), (25, 20)])
def test_of_a_few_images_all_are_wanted(known, count, chosen):
    features = known[3][:count]
    assert len(wanted_labels(guesses_of(known, features), features, known[2])) == chosen


def test_images_of_which_all_guesses_are_sure_are_wanted_too(known):
    found = guesses_of(known, known[3])
    sure = type(found)(found.labels, torch.ones_like(found.right), found.match, found.rates)
    rows = [row for row, _ in wanted_labels(sure, known[3], known[2])]
    assert len(set(rows)) == len(rows) == 20


def test_images_that_are_all_alike_are_wanted_once(known):
    features = known[3][:1].repeat(40, 1)
    assert len(wanted_labels(guesses_of(known, features), features, known[2])) == 1


def test_images_that_differ_by_rounding_alone_are_one_image_whose_score_is_theirs(known):
    chance = torch.Generator().manual_seed(0)
    two = known[3][[0, 1]].repeat(20, 1)
    features = two * (1 + 1e-7 * torch.randn(two.shape, generator=chance))
    wanted = wanted_labels(guesses_of(known, features), features, known[2])
    assert sorted(row % 2 for row, _ in wanted) == [0, 1]
    assert sum(score for _, score in wanted) == pytest.approx(1)
