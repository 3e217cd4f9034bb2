"""A model cut in two is the same model."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from homing.models.cut import CannotCut, Cut, cut_of
from homing.models.parts import set_trainable
from homing.training.optimizer import optimizer_of
from homing.training.step import Settings

FAMILIES = (
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "test_nfnet",
    "test_mambaout",
    "test_maxvit",
)
SIZE = 64


def cut(name: str, **arguments) -> tuple[nn.Module, torch.Tensor, Cut]:
    torch.manual_seed(0)
    sized = {"img_size": SIZE} if "vit" in name else {}
    model = timm.create_model(name, num_classes=3, **sized, **arguments).train()
    images = torch.randn(3, 3, SIZE, SIZE)
    found = cut_of(model, images[:2])
    return model.eval(), images, found


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_gradients_are_those_of_the_whole_model(name):
    model, images, found = cut(name)
    set_trainable(model, "last_stage")
    tail, activations = found.tail(model), found.activations(model, images, "fp32").clone()
    whole = model(images)
    whole.square().sum().backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = {name: parameter.grad.clone() for name, parameter in trained.items()}
    model.zero_grad()
    ours = tail(activations)
    ours.square().sum().backward()
    assert torch.equal(ours, whole)
    assert expected
    for name, gradient in expected.items():
        assert torch.equal(trained[name].grad, gradient), name


def test_the_tail_holds_the_models_own_parameters_under_their_names_and_the_model_is_as_it_was():
    model, images, found = cut("test_efficientnet")
    before, modules = model(images), [name for name, _ in model.named_modules()]
    assert torch.equal(cut("test_efficientnet")[0](images), before)
    tail = found.tail(model)
    whole, ours = dict(model.named_parameters()), dict(tail.named_parameters())
    assert 0 < len(ours) < len(whole)
    assert all(whole[name] is parameter for name, parameter in ours.items())
    assert tail.get_classifier() is model.get_classifier()
    assert torch.equal(model(images), before)
    assert [name for name, _ in model.named_modules()] == modules
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_the_optimizer_scales_layers_as_for_the_whole_model(name):
    model, _, found = cut(name)
    set_trainable(model, "last_stage")
    settings = Settings(num_steps=1, layer_decay=0.5)
    scales = [
        {id(p): (group.get("lr_scale"), group["weight_decay"]) for group in one.param_groups for p in group["params"]}
        for one in (optimizer_of(model, settings), optimizer_of(found.tail(model), settings))
    ]
    assert scales[0] == scales[1]


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("test_vit_relpos", {}, "more than one tensor"),
        ("levit_128s", {}, "one behind the other"),
        ("test_resnet", {"drop_path_rate": 0.2}, "chance"),
        ("test_vit", {"pos_drop_rate": 0.1}, "chance"),
    ],
)
def test_what_cannot_be_cut_says_why_and_is_left_as_it_was(name, arguments, why):
    torch.manual_seed(0)
    size = {"img_size": SIZE} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=3, **size, **arguments).train()
    side = SIZE if name == "test_vit" else model.pretrained_cfg["input_size"][-1]
    with pytest.raises(CannotCut, match=why):
        cut_of(model, torch.randn(2, 3, side, side))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
