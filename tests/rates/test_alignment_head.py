"""Alignments of the head alone are the closed form, whatever lies before the head."""

import pytest
import timm
import torch
from alignment_models import batch, direction_of, losses_of, patches
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from homing.rates import Alignment, AlignmentError

torch.set_num_threads(1)


def observed(model, images, labels, direction, scope, loss=losses_of):
    alignment = Alignment(model, scope=scope)
    with alignment.observe(direction):
        (torch.tensor([0.0, 2.0, 1.0])[: len(labels)] * loss(model(images), labels)).mean().backward()
    return alignment.values(), alignment


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_equal_to_the_closed_form_and_to_the_general_path(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **({"img_size": 32} if name == "test_vit" else {})).double().eval()
    head, direction = model.get_classifier(), direction_of(model)
    images, labels = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3, 1])
    seen = {}
    handle = head.register_forward_hook(lambda module, args, out: seen.update(h=args[0].detach(), z=out.detach()))
    found, alignment = observed(model, images, labels, direction, "head")
    handle.remove()
    prefix = next(name for name, module in model.named_modules() if module is head)
    moved = seen["h"] @ direction[f"{prefix}.weight"].T + direction[f"{prefix}.bias"]
    closed = ((seen["z"].softmax(1) - one_hot(labels, 4)) * moved).sum(1)
    assert relative(found, closed) < 1e-12
    assert alignment.covered == (f"{prefix}.weight", f"{prefix}.bias")
    general, _ = observed(model, images, labels, direction, lambda name: name.startswith(f"{prefix}."))
    assert relative(found, general) < 1e-12


def test_a_model_that_is_a_head():
    torch.manual_seed(0)
    head, features, labels = nn.Linear(7, 4, bias=False).double(), torch.randn(3, 7).double(), torch.tensor([0, 3, 1])
    direction = {"weight": torch.randn(4, 7, dtype=torch.float64)}
    found, _ = observed(
        head,
        features,
        labels,
        direction,
        "all",
        lambda z, y: cross_entropy(z, y, reduction="none", label_smoothing=0.1),
    )
    target = 0.9 * one_hot(labels, 4).double() + 0.025
    closed = ((head(features).softmax(1) - target) * (features @ direction["weight"].T)).sum(1)
    assert relative(found, closed.detach()) < 1e-12


def test_nothing_before_the_head_is_looked_at():
    model, (images, labels) = patches(), batch(3)
    model.norm.train()  # no sample has a gradient of its own in front of it, but in the head each has
    before = model.norm.running_mean.clone()
    found, _ = observed(model, images, labels, direction_of(model), "head")
    model.norm.running_mean.copy_(before)
    assert found.isfinite().all()
    with pytest.raises(AlignmentError, match="batch norm"):
        observed(model, images, labels, direction_of(model), lambda name: name.startswith("head"))


def test_a_batch_of_any_width_holds_no_matrix_per_sample():
    width, classes, size = 3000, 1000, 200  # a matrix per sample would take 2.4 GB
    head = nn.Linear(width, classes)
    direction = {"weight": torch.randn(classes, width), "bias": torch.randn(classes)}
    alignment = Alignment(head, scope="head")
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(largest, *(t.numel() for t in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(t)), 0)
            return out

    with Sizes(), alignment.observe(direction):
        losses_of(head(torch.randn(size, width)), torch.arange(size) % classes).mean().backward()
    assert alignment.values().isfinite().all()
    assert largest <= max(size, classes) * width


def test_features_that_are_not_pooled_are_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.Flatten(1, 2), nn.Unflatten(1, (5, 4)), nn.Linear(4, 2))
    images = torch.randn(3, 5, 3)
    with pytest.raises(AlignmentError, match=r"features of shape \(3, 5, 4\).*predicate"):
        observed(model, images, torch.arange(3) % 2, direction_of(model), "head", lambda z, y: losses_of(z.mean(1), y))
