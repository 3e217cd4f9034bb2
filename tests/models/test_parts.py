"""Which parameters are trained, and how batch norms behave."""

from __future__ import annotations

import pytest
import timm
import torch

from homing.errors import RecipeError
from homing.models.parts import (
    adapt_batch_norms,
    batch_norms,
    classifier_of,
    lone_sample_held,
    set_trainable,
    set_training_mode,
)


def trained_share(name: str, trainable: str) -> float:
    model = timm.create_model(name, num_classes=3)
    set_trainable(model, trainable)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"]
)
def test_each_choice_trains_more_than_the_one_before(name):
    head, stage, whole = (trained_share(name, trainable) for trainable in ("head", "last_stage", "all"))
    assert 0 < head < stage < whole == 1


def test_a_frozen_trunk_keeps_no_graph():
    model = timm.create_model("resnet18", num_classes=3)
    set_trainable(model, "last_stage")
    seen = {}
    model.layer3.register_forward_hook(lambda module, inputs, output: seen.update(trunk=output.requires_grad))
    model.layer4.register_forward_hook(lambda module, inputs, output: seen.update(stage=output.requires_grad))
    model(torch.zeros(2, 3, 64, 64))
    assert seen == {"trunk": False, "stage": True}


def test_frozen_batch_norms_keep_their_statistics_and_train_their_affine_part():
    model = timm.create_model("test_resnet", num_classes=3)
    set_trainable(model, "all")
    set_training_mode(model, "frozen")
    before = model.bn1.running_mean.clone() if hasattr(model.bn1, "running_mean") else None
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    norms = list(batch_norms(model))
    assert norms
    assert all(not norm.training and norm.weight.grad is not None for norm in norms)
    assert before is None or torch.equal(before, model.bn1.running_mean)
    set_training_mode(model, "train")
    assert all(norm.training for norm in norms)


def test_adapted_statistics_are_those_of_the_images():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    pictures = torch.randn(16, 3, 32, 32) + 2
    first = next(iter(batch_norms(model)))
    seen = []
    handle = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    adapt_batch_norms(model, iter([pictures[:8], pictures[8:]]))
    handle.remove()
    assert torch.allclose(first.running_mean, torch.cat(seen).mean(dim=(0, 2, 3)), atol=1e-4)
    assert not first.training
    assert first.momentum is not None


def test_a_batch_of_one_sample_trains_with_the_statistics_gathered_so_far():
    """Where the last map is a single position, such a batch has no spread, and torch refuses it."""
    model = timm.create_model("resnet10t", num_classes=3)
    set_training_mode(model, "train")
    picture = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(picture)
    before = model.bn1.running_mean.clone()
    with lone_sample_held(model, 1):
        model(picture).sum().backward()
    assert torch.equal(before, model.bn1.running_mean)
    assert all(norm.training for norm in batch_norms(model))
    with lone_sample_held(model, 2):
        model(torch.randn(2, 3, 32, 32))
    assert not torch.equal(before, model.bn1.running_mean)


def test_a_head_that_is_not_linear_is_told():
    with pytest.raises(RecipeError, match="not one linear layer"):
        classifier_of(timm.create_model("levit_128s", num_classes=3))
