"""Rates where a row has several labels: probes of each, groups that rows are balanced in, consistency by label."""

import pytest
import torch
from torch.nn import functional

from homing.rates import Evidence
from homing.rates.learned.facts import PoolFacts, pool_facts
from homing.rates.learned.learner import learn_rates
from homing.rates.learned.one_vs_rest import fit_one_vs_rest, rarest_labels, set_losses
from homing.rates.learned.probe import with_bias
from homing.rates.learned.rate_model import class_presence

NUM_LABELS, WIDTH = 3, 12


def draw(num_rows, seed, shift):
    """Features of rows whose labels each add a direction of their own, in a domain that is shifted along another."""
    generator = torch.Generator().manual_seed(seed)
    sets = torch.rand(num_rows, NUM_LABELS, generator=generator) < torch.tensor([0.5, 0.35, 0.2])
    features = torch.randn(num_rows, WIDTH, generator=generator)
    features[:, :NUM_LABELS] += 4.0 * sets
    features[:, NUM_LABELS] += shift
    return features, sets


def evidence_of(num_rows=400, num_flipped=60):
    """A pool of which the first 60 rows are of the target's domain, and of the last some one label is wrong."""
    near, far = draw(60, 1, 4.0), draw(num_rows - 60, 2, 0.0)
    features, sets = (torch.cat(parts) for parts in zip(near, far, strict=True))
    given = sets.clone()
    wrong = torch.arange(num_rows - num_flipped, num_rows)
    given[wrong, wrong % NUM_LABELS] ^= True
    target, own = draw(30, 3, 4.0)
    counts = given.sum(dim=0)
    return Evidence(
        features,
        rarest_labels(given, counts),
        target,
        rarest_labels(own, counts),
        NUM_LABELS + 1,
        source_sets=given,
        target_sets=own,
    )


@pytest.fixture(scope="module")
def evidence():
    return evidence_of()


@pytest.fixture(scope="module")
def plan(evidence):
    return learn_rates(evidence, folds=3)


def test_a_row_belongs_to_its_rarest_label():
    sets = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)
    assert rarest_labels(sets, torch.tensor([5, 2, 9])).tolist() == [1, 0, 3, 1]


def test_probes_of_all_labels_minimise_the_binary_cross_entropy():
    features, sets = draw(200, 0, 0.0)
    columns, weights = with_bias(features), torch.rand(2, 200, generator=torch.Generator().manual_seed(0)) + 0.1
    found = fit_one_vs_rest(columns, sets, weights, ridge=0.1).double().requires_grad_()
    each = functional.binary_cross_entropy_with_logits(
        columns.double() @ found, sets.double().expand(2, -1, -1), reduction="none"
    ).sum(dim=2)
    # two probes of half the size, as the softmax of two classes has them: half the penalty
    loss = ((weights * each).sum(dim=1) / weights.sum(dim=1)).sum() + 0.1 / 4 * found[:, :-1].square().sum()
    (slope,) = torch.autograd.grad(loss, found)
    assert float(slope.abs().max()) < 2e-3  # of 0.3 at zero weights
    again = fit_one_vs_rest(columns, sets, weights, ridge=0.1, start=found.detach().float())
    assert torch.allclose(again, found.detach().float(), atol=1e-2)


def test_the_loss_of_a_set_is_that_of_its_labels_added_up():
    logits, sets = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5, 3).bool()
    wanted = functional.binary_cross_entropy_with_logits(logits, torch.ones(2, 5, 3), reduction="none").sum(2)
    assert torch.equal(set_losses(logits, sets), wanted)


def test_rows_of_the_targets_domain_are_lifted_and_wrong_labels_let_go(plan, evidence):
    match, right = plan.match, plan.right
    assert float(match[:60].mean()) > 5 * float(match[60:].mean())
    assert float(right[:340].mean()) > 0.98
    assert float(right[340:].mean()) < 0.9  # one label of three is wrong
    assert float(plan.rates[:60].mean()) > float(plan.rates[60:340].mean()) > 1.5 * float(plan.rates[340:].mean())


def test_rates_have_mean_1_in_each_group_and_settings_are_judged(plan, evidence):
    for group in range(NUM_LABELS + 1):
        assert float(plan.rates[evidence.source_labels == group].mean()) == pytest.approx(1, abs=1e-3)
    assert sum(row["chosen"] for row in plan.judged) == 1
    assert plan.scorer is None
    assert plan.suggested is None
    assert not plan.doubted
    assert not [text for text in plan.warnings if "guessing" in text]


def test_what_a_pool_tells_is_kept_and_the_same_plan_comes_of_it(plan, evidence):
    facts = pool_facts(
        evidence.source_features, evidence.source_labels, evidence.num_classes, sets=evidence.source_sets
    )
    kept = PoolFacts.from_tensors(facts.tensors())
    assert len(kept.consistency.each) == NUM_LABELS
    assert torch.equal(learn_rates(evidence, folds=3, pool=kept).rates, plan.rates)
    assert 0.03 < kept.consistency.wrong_share < 0.1  # 20 of 400 of each label


def test_a_class_that_no_target_image_has_counts_less_and_rows_without_a_label_count(evidence):
    own = evidence.target_sets.clone()
    own[:, 2] = False
    without = Evidence(
        evidence.source_features,
        evidence.source_labels,
        evidence.target_features,
        evidence.target_labels,
        NUM_LABELS + 1,
        source_sets=evidence.source_sets,
        target_sets=own,
    )
    presence = class_presence(without)
    assert presence[[0, 1, 3]].tolist() == [1, 1, 1]
    assert float(presence[2]) < 0.5
