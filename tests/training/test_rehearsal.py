"""A step on made-up images tells what a training would refuse, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from homing.errors import RecipeError
from homing.models.backbone import build_model
from homing.recipe.schema import Recipe
from homing.training.rehearsal import rehearse_scan, rehearse_step
from homing.unpacking import training_settings

CPU = torch.device("cpu")
POOLS = {role: {"path": role} for role in ("source", "target")}


def settings_of(**training):
    return training_settings(Recipe.model_validate({"data": POOLS, "training": {"steps": 1, **training}}), num_steps=1)


def rehearse(settings, *, trainable="all", observed=None, backbone="test_resnet"):
    model, preprocessing, _ = build_model(backbone, "none", num_classes=3, image_size=32, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.random.get_rng_state()
    try:
        rehearse_step(
            model, preprocessing, CPU, settings, trainable=trainable, needs_linear_head=True, observed=observed
        )
    finally:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.random.get_rng_state(), chance)
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("trainable", ["all", "last_stage", "head"])
@pytest.mark.parametrize("observed", [None, "head"])
def test_a_step_that_can_be_taken_leaves_no_trace(trainable, observed):
    rehearse(settings_of(), trainable=trainable, observed=observed)


def test_a_batch_that_no_memory_holds_is_refused_with_its_size():
    with pytest.raises(RecipeError, match=r"training\.batch_size: a step takes at least .* GB of memory"):
        rehearse(replace(settings_of(), batch_size=10**9))


def test_an_optimizer_that_nobody_knows_is_refused():
    with pytest.raises(RecipeError, match=r"training\.optimizer: timm cannot make 'foo'"):
        rehearse(settings_of(optimizer="foo"))


def test_a_model_that_fails_is_one_sentence():
    model, preprocessing, _ = build_model("test_resnet", "none", num_classes=3, image_size=32, seed=0)
    model.forward_features = lambda images: images @ torch.ones(7)
    with pytest.raises(RecipeError, match=r"no image of 32 pixels can be put through it"):
        rehearse_scan(model, preprocessing, CPU, "fp32")
