"""Which label stands on which class, and whether the one at hand is right."""

from dataclasses import replace

import pytest
import torch
from gaussian_domains import hidden_matches, rare_classes
from sklearn.metrics import roc_auc_score

from homing.rates import Evidence
from homing.rates.learned.consistency import pool_consistency
from homing.rates.learned.label_noise import label_noise, right_from_clean, right_from_noisy

NUM_CLASSES = 5
MIXED_UP = 0.7 * torch.eye(NUM_CLASSES) + 0.3 * torch.eye(NUM_CLASSES).roll(1, dims=1)
COMMON = torch.full((NUM_CLASSES, NUM_CLASSES), 0.1) + 0.5 * torch.eye(NUM_CLASSES)


def drawn(noise, seed, rows=4000):
    """True classes, labels drawn by the noise, and log-probabilities of a probe that is right but not always sure."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(NUM_CLASSES, (rows,), generator=generator)
    labels = torch.multinomial(noise[true], 1, generator=generator).squeeze(1)
    sureness = 4 * torch.rand(rows, 1, generator=generator)
    return true, labels, (sureness * torch.nn.functional.one_hot(true, NUM_CLASSES)).log_softmax(dim=1)


@pytest.mark.parametrize("noise", [MIXED_UP, COMMON], ids=["mixed up", "common"])
def test_noise_is_found_as_it_is(noise):
    _, labels, log_probs = drawn(noise, seed=0)
    found = label_noise(log_probs, labels)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(NUM_CLASSES))
    # 40 sure rows a class: one standard deviation of a share of 0.3 is 0.07.
    assert (found - noise).abs().max() < 0.2
    assert (found - noise).abs().mean() < 0.05


def test_noise_that_is_common_to_all_classes_is_found_to_be():
    _, labels, log_probs = drawn(COMMON, seed=1)
    found = label_noise(log_probs, labels)
    wrong = found[~torch.eye(NUM_CLASSES, dtype=torch.bool)]
    assert wrong.max() - wrong.min() < 0.06, "40 rows a class would scatter by 0.2 if each stood for itself"


@pytest.mark.parametrize("per_class", [1, 3, 6, 14])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_few_rare_classes_do_not_hide_the_noise_of_the_others(per_class, seed):
    evidence = rare_classes(per_class, seed)
    found, common = pool_consistency(evidence, seed), evidence.source_labels < 6
    assert 0.1 < found.wrong_share < 0.45
    assert roc_auc_score(evidence.clean[common], found.right[common]) > 0.9


@pytest.mark.parametrize(("num_classes", "apart"), [(2, 1.0), (6, 3.0)])
def test_wrong_labels_are_found_among_two_classes_and_among_classes_far_apart(num_classes, apart):
    """There a flattened probe explains three wrong labels in ten nearly as well as noise does."""
    found = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        centres = apart * torch.randn(num_classes, 32, generator=generator)
        true = torch.arange(3000) % num_classes
        features = centres[true] + torch.randn(3000, 32, generator=generator)
        other = (true + torch.randint(1, num_classes, true.shape, generator=generator)) % num_classes
        labels = torch.where(torch.rand(3000, generator=generator) < 0.3, other, true)
        evidence = Evidence(features, labels, features[:4], true[:4], num_classes)
        right = pool_consistency(evidence, seed).right
        found.append(float(roc_auc_score(labels == true, right)))
        clean = pool_consistency(replace(evidence, source_labels=true), seed)
        assert (clean.right == 1).all()
    assert sum(auroc > 0.95 for auroc in found) >= 3, found


def test_wrong_labels_may_be_as_frequent_as_right_ones():
    """Three in ten labels are guesses by somebody who knows how frequent the classes are."""
    generator, frequent = torch.Generator().manual_seed(5), torch.tensor([0.6, 0.2, 0.1, 0.06, 0.04])
    true = torch.multinomial(frequent, 4000, replacement=True, generator=generator)
    guesses = torch.multinomial(frequent, 4000, replacement=True, generator=generator)
    labels = torch.where(torch.rand(4000, generator=generator) < 0.3, guesses, true)
    sureness = 1 + 4 * torch.rand(4000, 1, generator=generator)
    log_probs = (sureness * torch.nn.functional.one_hot(true, NUM_CLASSES)).log_softmax(dim=1)
    found = label_noise(log_probs, labels)
    expected = 0.3 * frequent.expand(NUM_CLASSES, -1) + 0.7 * torch.eye(NUM_CLASSES)
    assert (found - expected).abs().mean() < 0.04
    assert found[1, 0] > 2 * found[1, 2:].max()


def test_nothing_wrong_is_found_where_nothing_is():
    true, _, log_probs = drawn(COMMON, seed=2)
    noise = label_noise(log_probs, true)
    assert torch.equal(noise, torch.eye(NUM_CLASSES))
    assert torch.equal(right_from_clean(log_probs.exp(), true, noise), torch.ones(len(true)))


def test_bayes_rule_by_hand():
    """Foxes are called dogs 3 times in 10, dogs always dogs: what is called fox is one."""
    noise = torch.tensor([[1.0, 0.0], [0.3, 0.7]])  # dog, fox
    probs = torch.tensor([[0.2, 0.8], [0.2, 0.8], [1.0, 0.0]])
    right = right_from_clean(probs, torch.tensor([0, 1, 0]), noise)
    torch.testing.assert_close(right, torch.tensor([0.2 / (0.2 + 0.3 * 0.8), 1.0, 1.0]))


def test_unmixing_undoes_the_noise():
    _, labels, log_probs = drawn(MIXED_UP, seed=3)
    of_labels = log_probs.exp() @ MIXED_UP
    right = right_from_noisy(of_labels, labels, MIXED_UP)
    torch.testing.assert_close(right, right_from_clean(log_probs.exp(), labels, MIXED_UP), rtol=1e-4, atol=1e-5)


def test_labels_that_say_nothing_are_all_kept():
    noise = torch.full((NUM_CLASSES, NUM_CLASSES), 1 / NUM_CLASSES)
    _, labels, log_probs = drawn(noise, seed=4)
    assert torch.equal(right_from_noisy(log_probs.exp(), labels, noise), torch.ones(len(labels)))


def test_classes_that_are_mixed_up_are_told_apart():
    areas = []
    for seed in range(4):
        evidence = hidden_matches(seed=seed, wrong=0.3, mixed_up=True)
        areas.append(roc_auc_score(evidence.clean, pool_consistency(evidence, seed=0).right))
    # Noise that is taken as common lets many a wrong label pass for the next class: 0.89.
    assert sum(areas) / 4 > 0.92


def overlapping(num_classes, rows, apart, wrong=0.0):
    """A pool of so many rows of each class, whose means lie so far from each other, in units of their own spread."""
    generator = torch.Generator().manual_seed(num_classes)
    means = apart * torch.randn(num_classes, 32, generator=generator)
    true = torch.arange(num_classes).repeat_interleave(rows)
    features = means[true] + torch.randn(len(true), 32, generator=generator)
    clean = torch.rand(len(true), generator=generator) >= wrong
    other = (true + torch.randint(1, num_classes, true.shape, generator=generator)) % num_classes
    return Evidence(features, torch.where(clean, true, other), features[:1], true[:1], num_classes, clean=clean)


@pytest.mark.parametrize(
    ("num_classes", "rows", "apart"), [(7, 200, 0.15), (17, 80, 0.15), (81, 12, 0.3), (200, 5, 0.3)]
)
def test_features_that_cannot_tell_classes_apart_are_no_evidence_against_labels(num_classes, rows, apart):
    found = pool_consistency(overlapping(num_classes, rows, apart), seed=0)
    # By the sure rows alone: half of them and more.
    assert (found.right < 0.5).float().mean() <= 0.03


@pytest.mark.parametrize("features", [0.0, 1.0])
@pytest.mark.parametrize(("num_classes", "rows"), [(3, 1), (3, 100), (10, 10)])
def test_no_label_is_called_wrong_where_features_say_nothing(num_classes, rows, features):
    evidence = overlapping(num_classes, rows, apart=0.0)
    found = pool_consistency(replace(evidence, source_features=features * evidence.source_features), seed=0)
    assert found.right.min() == 1
    assert found.wrong_share == 0


@pytest.mark.parametrize(("num_classes", "rows", "apart"), [(17, 80, 0.5), (81, 20, 1.0)])
@pytest.mark.parametrize("wrong", [0.2, 0.4])
def test_wrong_labels_are_still_found_where_features_are_good(num_classes, rows, apart, wrong):
    evidence = overlapping(num_classes, rows, apart, wrong)
    found = pool_consistency(evidence, seed=0)
    assert found.wrong_share == pytest.approx(wrong, abs=0.07)
    assert roc_auc_score(evidence.clean, found.right) > 0.95
