"""How methods train by their rates: phases, and those of a second branch."""

import pytest
import torch

from homing.evaluation.training_plans import training_plan
from homing.methods import METHODS
from homing.rates.learned.guesses import Guesses
from homing.rates.learned.plan import RatePlan

HOMING, NUM_TARGET = METHODS["hierarchical"], 10


def learned(match_share, num_source=200):
    """What homing finds where this share of the pool matches."""
    phi = {} if match_share is None else {"match_share": match_share}
    return RatePlan(torch.linspace(0.5, 1.5, num_source), 5.0, phi=phi)


def test_a_second_branch_ends_on_the_target_where_nothing_matches():
    rates = learned(0.02)
    plan = training_plan(HOMING, rates, NUM_TARGET)
    (whole,) = plan.phases
    assert (whole.target_weight, whole.share) == (5, 1)
    assert plan.of_branch(1) is plan
    assert plan.of_branch(3) is plan
    second = plan.of_branch(2)
    before, after = second.phases
    assert torch.equal(before.rates, rates.rates)
    assert before.target_weight == 0
    assert not after.rates.any()
    assert after.target_weight == 5
    assert before.share + after.share == 1
    assert second.start is whole  # all branches start from one head
    assert second.digest() != plan.digest()


@pytest.mark.parametrize(
    ("share", "num_source"),
    [(0.051, 200), (0.04, 1000), (None, 200)],
    ids=["a share of the pool", "many times the target", "likeness was not looked at"],
)
def test_all_branches_are_alike_where_rows_may_match(share, num_source):
    plan = training_plan(HOMING, learned(share, num_source), NUM_TARGET)
    assert plan.of_branch(2) is plan


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"hierarchical"}))
def test_no_other_method_has_a_branch_of_its_own(name):
    if METHODS[name].trains:
        plan = training_plan(METHODS[name], learned(0.0), NUM_TARGET)
        assert plan.of_branch(2) is plan


def test_nor_have_rates_that_move_classes_of_its_own_or_guesses():
    rates = learned(0.0)
    assert not training_plan(HOMING, rates, NUM_TARGET, residuals=True).apart
    assert not training_plan(HOMING, rates, NUM_TARGET, shares_labels=False).apart
    guesses = Guesses(torch.tensor([1]), torch.tensor([0.9]), torch.tensor([0.9]), torch.tensor([2.0]))
    guessing = training_plan(HOMING, RatePlan(rates.rates, 5.0, phi=rates.phi, guesses=guesses), NUM_TARGET)
    assert not guessing.apart
    assert len(guessing.phases[0].rates) == 201
