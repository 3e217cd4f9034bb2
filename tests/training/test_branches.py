"""Fine-tunings from one start whose weights are averaged."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

import homing.training.branches as branches
from homing.flow import run
from homing.unpacking import branches_of
from small_run import draw_problem, small_recipe

RECIPE = (
    "model.trainable=last_stage",
    "model.backbone=test_efficientnet",
    "training.target_weight=4",
    "training.branches=3",
)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


@pytest.fixture
def fits(monkeypatch):
    """Every fit of a run, as it was before the average; `stop_at`: which of them is interrupted instead."""
    found, before = [], branches.fit

    def noted(session, material, shared, one):
        if len(found) == noted.stop_at:
            raise KeyboardInterrupt
        found.append(before(session, material, shared, one))
        found[-1] = copy.deepcopy(found[-1])
        return copy.deepcopy(found[-1])

    noted.stop_at, noted.found = None, found
    monkeypatch.setattr(branches, "fit", noted)
    return noted


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_the_model_is_the_mean_of_its_branches_which_differ(problem, tmp_path, fits):
    result = run(small_recipe(problem, *RECIPE), tmp_path / "run", quiet=True)
    assert len(fits.found) == 3
    states = [one.model.state_dict() for one in fits.found]
    moved = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert moved
    shipped = weights(result.folder)
    for name in moved:
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        torch.testing.assert_close(shipped[name].double(), mean, rtol=1e-5, atol=1e-6)
    visits = sum(int(one.visits.sum()) for one in fits.found)
    assert result.results["cost"]["source_gradients"] == visits
    assert result.results["cost"]["branches"] == 3


def test_the_first_branch_is_the_run_without_branches(problem, tmp_path, fits):
    run(small_recipe(problem, *RECIPE), tmp_path / "three", quiet=True)
    alone = run(small_recipe(problem, *RECIPE, "training.branches=1"), tmp_path / "one", quiet=True)
    first, shipped = fits.found[0].model.state_dict(), weights(alone.folder)
    assert all(torch.equal(first[name], shipped[name]) for name in shipped)


def test_a_run_goes_on_in_the_branch_where_it_was_stopped(problem, tmp_path, fits):
    recipe = small_recipe(problem, *RECIPE, "training.steps=8")
    whole = run(recipe, tmp_path / "whole", quiet=True)
    fits.found.clear()
    fits.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", quiet=True)
    fits.stop_at = None
    assert weights(run(recipe, tmp_path / "cut", resume=True, quiet=True).folder).keys() == weights(whole.folder).keys()
    ours, theirs = weights(tmp_path / "cut"), weights(whole.folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not list((tmp_path / "cut" / "checkpoints").glob("*branch*"))


@pytest.mark.parametrize(
    ("changes", "keeps", "expected"),
    [
        (["model.weights=pretrained"], True, 2),
        (["model.weights=pretrained"], False, 1),
        (["model.weights=none"], True, 1),
        (["model.weights=pretrained", "model.head_init=random"], True, 1),
        (["model.weights=none", "training.branches=2"], False, 2),
    ],
)
def test_several_by_themselves_only_where_they_cost_little(problem, changes, keeps, expected):
    assert branches_of(small_recipe(problem, *changes), keeps_activations=keeps) == expected
