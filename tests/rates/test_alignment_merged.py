"""A batch norm that takes over the convolution before it gives the same values, and does so only where it may."""

import pytest
import torch
from alignment_models import direction_of, losses_of
from references import per_sample_loop
from torch import nn

from homing.rates import Alignment
from homing.rates.alignment import meetings

torch.set_num_threads(1)


class Unseen(torch.autograd.Function):
    """A call that no trace sees."""

    @staticmethod
    def forward(ctx, x):
        return 0.1 * x

    @staticmethod
    def backward(ctx, gradient):
        return 0.1 * gradient


class Net(nn.Module):
    """Convolutions of several kinds, each with a norm behind it, whose outputs are wider than their weights."""

    def __init__(self, between=lambda x: x, beside=lambda x: 0.0):
        super().__init__()
        self.between, self.beside = between, beside
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4, stride=2, bias=False)
        self.pointwise = nn.Conv2d(4, 6, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4, eps=0.1), nn.BatchNorm2d(6, affine=False)])
        self.narrow = nn.Linear(6, 2)
        self.last = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = self.between(self.stem(x))
        x = self.norms[0](x).relu() + self.beside(x)
        x = self.norms[1](self.depthwise(x)).relu()
        x = self.norms[2](self.pointwise(x)).relu_()
        return self.head(self.last(self.narrow(x.mean((2, 3)))))


def net(**ways):
    torch.manual_seed(0)
    model = Net(**ways).double().eval()
    for norm in (*model.norms, model.last):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        model.norms[0].weight[0] = 0.0  # as residual branches begin
    return model


IMAGES, LABELS = torch.randn(7, 3, 7, 7, dtype=torch.float64), torch.arange(7) % 3


def check(model, scope="all"):
    """Compare with plain autograd; returns the numbers of norms that took over."""
    direction, alignment = direction_of(model), Alignment(model, scope=scope)
    taken = []

    def spy(call, norm):
        taken.append(norm)
        return merged(call, norm)

    merged, meetings.linear_then_norm = meetings.linear_then_norm, spy
    try:
        with alignment.observe(direction):
            losses_of(model(IMAGES), LABELS).mean().backward()
    finally:
        meetings.linear_then_norm = merged
    seen = {name: v if name in alignment.covered else torch.zeros_like(v) for name, v in direction.items()}
    expected = per_sample_loop(model, losses_of, IMAGES, LABELS, seen)
    assert float((alignment.values() - expected).norm() / expected.norm()) < 1e-12
    return len(taken)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_merged_values_are_exact(layout):
    assert check(net().to(memory_format=layout)) == 3  # the affine-less norm has nothing to merge


def test_frozen_parts():
    model = net()
    model.stem.weight.requires_grad_(False)
    model.norms[1].weight.requires_grad_(False)
    model.last.requires_grad_(False)
    assert check(model) == 2


def test_scope_leaves_one_half_out():
    assert check(net(), scope=lambda name: "norms" in name or "head" in name) == 0
    assert check(net(), scope=lambda name: "norms" not in name) == 1
    assert check(net(), scope=lambda name: name.endswith("weight")) == 3


@pytest.mark.parametrize(
    "ways",
    [
        {"beside": lambda x: 0.1 * x.sin()},  # the convolution's output is used again
        {"between": lambda x: x.mul_(0.5)},  # or changed in place
        {"between": lambda x: x * 2},  # or does not go into the norm as it is
        {"beside": lambda x: Unseen.apply(x)},  # used out of sight
    ],
)
def test_outputs_that_do_not_go_into_the_norm_alone_are_left_to_their_convolution(ways):
    assert check(net(**ways)) == 2


def test_gradients_by_autograd_grad():
    model = net()
    direction, alignment = direction_of(model), Alignment(model)
    with alignment.observe(direction):
        torch.autograd.grad(losses_of(model(IMAGES), LABELS).mean(), list(model.parameters()))
    expected = per_sample_loop(model, losses_of, IMAGES, LABELS, direction)
    assert float((alignment.values() - expected).norm() / expected.norm()) < 1e-12
    assert alignment.coverage().parameters == 1.0
