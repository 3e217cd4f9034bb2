"""Weights of L2RW and Meta-Weight-Net, against the double backward that they were published with."""

from __future__ import annotations

import torch
from torch.func import functional_call
from torch.nn import functional

from homing.rates import Alignment
from homing.rates.online.reweighting import WeightNet, aligned_weights

STEP = 1e-3


def tiny_problem():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    batch, guide = (torch.randn(count, 5, dtype=torch.float64) for count in (12, 4))
    return model, (batch, torch.arange(12) % 3), (guide, torch.arange(4) % 3)


def one_step_meta_gradient(model, batch, guide, weights):
    """d target loss / d weights through one SGD step of size `STEP`, by double backward (Ren et al. 2018, eq. 12)."""
    parameters = dict(model.named_parameters())
    losses = functional.cross_entropy(functional_call(model, parameters, batch[0]), batch[1], reduction="none")
    gradients = torch.autograd.grad((weights * losses).mean(), list(parameters.values()), create_graph=True)
    moved = {name: p - STEP * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    return torch.autograd.grad(functional.cross_entropy(functional_call(model, moved, guide[0]), guide[1]), weights)[0]


def alignments_of(model, batch, direction):
    alignment = Alignment(model)
    with alignment.observe(direction):
        functional.cross_entropy(model(batch[0]), batch[1]).backward()
    return alignment.values()


def gradient_of(model, pair):
    loss = functional.cross_entropy(model(pair[0]), pair[1])
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))


def test_l2rw_weights_are_those_of_the_double_backward():
    model, batch, guide = tiny_problem()
    weights = torch.zeros(12, dtype=torch.float64, requires_grad=True)  # where the paper takes the gradient
    published = (-one_step_meta_gradient(model, batch, guide, weights)).clamp(min=0)
    published = published / published.sum()
    ours = aligned_weights(alignments_of(model, batch, gradient_of(model, guide)))
    assert int((published == 0).sum()) > 0  # some samples are turned down
    torch.testing.assert_close(ours / len(ours), published, rtol=1e-9, atol=1e-12)  # fp64: rounding alone


def test_wrong_labels_weigh_less_once_the_net_has_learned():
    generator = torch.Generator().manual_seed(0)
    losses = torch.cat([torch.rand(64, generator=generator), 2 + torch.rand(64, generator=generator)])
    alignments = torch.cat([torch.ones(64), -torch.ones(64)])  # where the loss is high, the label is wrong
    net = WeightNet()
    for _ in range(300):
        net.learn(losses, alignments)
    weights = net.weights(losses)
    assert abs(float(weights.mean()) - 1) < 1e-5  # fp32 rounding
    assert float(weights[64:].max()) < 0.5 * float(weights[:64].min())


def test_a_net_goes_on_from_its_state_as_if_it_had_never_stopped():
    losses, alignments = torch.linspace(0, 3, 16), torch.linspace(1, -1, 16)
    net, other = WeightNet(seed=1), WeightNet(seed=2)
    net.learn(losses, alignments)
    other.load(net.state())
    for each in (net, other):
        each.learn(losses, alignments)
    assert torch.equal(net.weights(losses), other.weights(losses))


def test_l2rw_gives_nothing_to_a_batch_that_helps_nobody():
    assert torch.equal(aligned_weights(torch.tensor([-1.0, -2.0])), torch.zeros(2))


def test_the_net_moves_as_by_the_double_backward():
    model, batch, guide = tiny_problem()
    net = WeightNet(seed=3)
    losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none").detach()
    reference = WeightNet(seed=3)
    weights = reference._weights(losses).double()
    meta = one_step_meta_gradient(model, batch, guide, weights.detach().requires_grad_())
    (gradient,) = torch.autograd.grad((meta.float() * weights.float()).sum(), reference._psi)
    net.learn(losses, alignments_of(model, batch, gradient_of(model, guide)))
    ours = STEP * net.state()["adam/exp_avg"] / 0.1  # Adam's first moment is a tenth of its first gradient
    # ours takes the guide's gradient before the step, the paper after it: they differ by the order of the step size
    torch.testing.assert_close(ours, gradient, rtol=0, atol=2e-2 * float(gradient.abs().max()))
