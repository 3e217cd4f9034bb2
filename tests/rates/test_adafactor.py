"""The diagonal of Adafactor, as timm and transformers write it: what it makes of a gradient is the step it takes."""

import pytest
import torch
from timm.optim._optim_factory import create_optimizer_v2
from torch import nn

from homing.rates.alignment.preconditioner import Preconditioner


def theirs(**how):
    from transformers import Adafactor

    return lambda model: Adafactor(model.parameters(), clip_threshold=1e9, **how)


MAKERS = {
    "timm": lambda model: create_optimizer_v2(model, opt="adafactor", lr=1e-3, weight_decay=0.0, clip_threshold=1e9),
    "timm, big vision": lambda model: create_optimizer_v2(
        model, opt="adafactorbv", lr=1e-3, weight_decay=0.0, momentum=None, clipping_threshold=None
    ),
    "transformers": theirs(lr=1e-3, relative_step=False, scale_parameter=False),
    "transformers, scaled": theirs(lr=1e-3, relative_step=False, scale_parameter=True),
    "transformers, its own rate": theirs(),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_it_makes_of_a_gradient_is_the_step(name):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(40, 36, 3), nn.BatchNorm2d(36), nn.Flatten(), nn.Linear(36 * 4, 40), nn.Linear(40, 5)
    )
    model.double()
    optimizer = MAKERS[name](model)
    for _ in range(3):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.zero_grad()
        model(torch.randn(8, 40, 4, 4, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    pairs = [(parameter, parameter.grad) for parameter in model.parameters()]
    made = torch.cat([part.flatten() for part in Preconditioner(optimizer).apply(pairs)])
    taken = torch.cat([(old - new.detach()).flatten() for old, new in zip(before, model.parameters(), strict=True)])
    counted = made.abs() > 1e-3 * made.abs().max()
    ratio = taken[counted] / made[counted]
    # one learning rate for all; beside the root of a second moment an epsilon of 1e-30 is nothing
    torch.testing.assert_close(ratio, ratio.median().expand_as(ratio), rtol=1e-3, atol=0)
