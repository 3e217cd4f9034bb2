"""Classes that only the target has: the source is rated as without them, and a fold may lack one."""

import math

import pytest
import torch
from gaussian_domains import NUM_CLASSES, hidden_matches

from homing.evaluation.baselines import BASELINES
from homing.rates import Evidence, learn_rates
from homing.rates.learned.facts import pool_facts
from homing.rates.learned.groups import groups_of
from homing.rates.learned.guesses import guess_labels
from homing.rates.learned.judge import judge
from homing.rates.learned.likeness import target_likeness

ONLY = 1  # the class that the source loses


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A source with wrong labels and rows that match, without one of the target's classes."""
    whole = hidden_matches(seed=3, wrong=0.2)
    return whole.with_source((whole.source_labels != ONLY).nonzero().flatten(), None)


@pytest.fixture(scope="module")
def plan(evidence):
    return learn_rates(evidence)


def shared_part(evidence: Evidence) -> Evidence:
    return evidence.within_source_classes()


def test_the_source_is_described_as_if_the_target_had_its_classes_alone(evidence, plan):
    without = learn_rates(shared_part(evidence))
    for name, values in without.descriptors.items():
        torch.testing.assert_close(plan.descriptors[name], values)
    assert plan.phi["wrong_share"] == pytest.approx(without.phi["wrong_share"])
    assert plan.phi["wrong_share"] > 0.1


def test_rates_are_balanced_within_each_class_and_tell_what_is_wrong(evidence, plan):
    for label in evidence.source_classes.tolist():
        mean = float(plan.rates[evidence.source_labels == label].mean())
        assert mean == pytest.approx(plan.phi["source_weight"], abs=1e-4)
    assert plan.rates[~evidence.clean].mean() < 0.5 * plan.rates[evidence.clean].mean()
    assert plan.suggested is not None
    assert not (plan.suggested == ONLY).any()
    assert not any("no target image" in text for text in plan.warnings)


def test_what_a_pool_tells_of_its_labels_names_no_class_that_it_lacks(evidence):
    labels = evidence.source_labels
    found = pool_facts(evidence.source_features, labels, NUM_CLASSES).consistency
    assert found is not None
    assert not found.noise[ONLY].any()
    assert not found.noise[:, ONLY].any()
    assert not (found.best == ONLY).any()
    classes = evidence.source_classes
    torch.testing.assert_close(found.within(classes).noise.sum(dim=1), torch.ones(len(classes)))


def test_an_image_of_a_class_that_a_fold_knows_nothing_of_is_not_judged(evidence):
    keep = evidence.target_labels != ONLY
    keep[(~keep).nonzero()[0]] = True  # a single image of it
    single = evidence.with_target(keep)
    verdict = judge(single, torch.tensor([1.0, 10.0]), lambda part: torch.ones(2, part.num_source))
    at = int((single.target_labels == ONLY).nonzero())
    torch.testing.assert_close(verdict.losses[:, at], torch.full((2,), math.log(NUM_CLASSES)))
    assert (verdict.losses[:, single.target_labels != ONLY] != math.log(NUM_CLASSES)).all()


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "hierarchical"])
def test_every_baseline_plans_with_such_a_class(evidence, name):
    found = BASELINES[name](evidence, target_weight=None)
    assert bool(torch.isfinite(found.rates).all())
    assert len(found.rates) == evidence.num_source
    assert found.target_weight >= (name != "source_only")


def test_likeness_is_of_the_domain_where_no_class_is_shared(evidence):
    alone = evidence.with_target(evidence.target_labels == ONLY)
    assert bool(torch.isfinite(target_likeness(alone, seed=0).log_ratio).all())
    assert bool(torch.isfinite(learn_rates(alone).rates).all())


def test_a_pool_that_is_scored_has_such_a_class_rated_by_likeness(evidence, plan):
    assert plan.scorer is not None
    features = evidence.target_features
    labels = torch.full((len(features),), ONLY)
    scores = plan.scorer(features, labels)
    assert scores.label_consistency.isnan().all()
    torch.testing.assert_close(scores.best, labels)
    torch.testing.assert_close(scores.rates, plan.scorer(features, None).rates)


def test_unlabelled_images_are_guessed_to_be_of_such_a_class(evidence, plan):
    facts = pool_facts(evidence.source_features, evidence.source_labels, NUM_CLASSES)
    images = evidence.target_features + 0.01
    guesses = guess_labels(evidence, plan.rates, plan.target_weight, images, projection=facts.projection)
    is_right = guesses.labels == evidence.target_labels
    assert float(is_right.float().mean()) > 0.6  # of mislabelled source rows some are of it
    assert float(is_right[evidence.target_labels == ONLY].float().mean()) > 0.6


def test_groups_of_many_classes_are_of_classes_that_the_source_has():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.arange(70).repeat(4), torch.arange(60, 150).repeat(2)
    features = torch.randn(len(source) + len(target), 4, generator=generator)
    many = Evidence(features[: len(source)], source, features[len(source) :], target, num_classes=150)
    groups = groups_of(many, torch.ones(len(source)))
    classes = torch.cat([group.classes for group in groups])
    assert int(classes.max()) < 70
    assert set(range(60, 70)) <= set(classes.tolist())
