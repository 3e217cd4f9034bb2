"""A direction towards reference weights needs no target batch: what helps a sample's step is being on the way."""

import pytest
import torch
from alignment_models import batch, losses_of, patches
from torch import nn

from homing.errors import HomingError
from homing.rates import Alignment, Direction

torch.set_num_threads(1)


def reference_of(model):
    generator = torch.Generator().manual_seed(3)
    return {n: v + 0.1 * torch.randn(v.shape, generator=generator) for n, v in model.state_dict().items()}


def observe(model, direction, images, labels):
    alignment = Alignment(model)
    with alignment.observe(direction):
        losses_of(model(images), labels).mean().backward()
    return alignment.values()


def step_of(model, optimizer):
    """One step of training, so that the optimizer has a second moment."""
    losses_of(model(batch()[0]), batch()[1]).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("kind", [None, torch.optim.SGD, torch.optim.Adam])
def test_alignments_are_the_steps_part_of_the_way_by_per_sample_autograd(kind):
    model, (images, labels) = patches(), batch()
    optimizer = kind and kind(model.parameters(), lr=1e-3)
    if optimizer:
        step_of(model, optimizer)
    reference, direction = reference_of(model), Direction(model, optimizer)
    direction.towards(reference)
    expected = []
    for image, label in zip(images, labels, strict=True):
        gradients = torch.autograd.grad(losses_of(model(image[None]), label[None]).sum(), list(model.parameters()))
        total = 0.0
        for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
            if kind is torch.optim.Adam:  # after one step v̂ is the square of its gradient
                gradient = gradient / ((optimizer.state[parameter]["exp_avg_sq"] / 0.001).sqrt() + 1e-8)
            total += float(((reference[name] - parameter.detach()) * -gradient).sum())
        expected.append(total)
    found = observe(model, direction, images, labels)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9)


def test_a_step_on_a_sample_of_positive_alignment_comes_nearer():
    model, (images, labels) = patches(), batch()
    reference, direction = reference_of(model), Direction(model)
    direction.towards(reference)
    values = observe(model, direction, images, labels)
    assert values.min() < 0 < values.max()
    for image, label, value in zip(images, labels, values, strict=True):
        gradients = torch.autograd.grad(losses_of(model(image[None]), label[None]).sum(), list(model.parameters()))
        change = 0.0
        for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
            way = parameter.detach() - reference[name]
            change += float((way - 1e-6 * gradient).square().sum() - way.square().sum())
        assert (change < 0) == (value > 0)


def train(model, features, labels, steps=60):
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    for _ in range(steps):
        losses_of(model(features), labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_right_labels_align_with_the_way_to_a_model_of_the_target_more_than_wrong_ones():
    torch.manual_seed(0)
    centres = 2 * torch.randn(4, 12)
    labels = torch.arange(200) % 4
    features = centres[labels] + torch.randn(200, 12)
    target = centres[labels[:80]] + torch.randn(80, 12)
    wrong = torch.arange(200) < 60
    given = torch.where(wrong, (labels + 1 + torch.arange(200) // 4 % 3) % 4, labels)
    assert torch.equal(given != labels, wrong)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, target, labels[:80])
    reference = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(start)
    direction = Direction(model)
    direction.towards(reference)
    values = observe(model, direction, features, given)
    pairs = (values[~wrong][:, None] > values[wrong][None]).float().mean()
    assert pairs > 0.95


def test_it_follows_the_weights_and_forgets_what_was_there():
    model = patches()
    direction = Direction(model, window=4)
    direction.update(losses_of(model(batch()[0]), batch()[1]).mean())
    direction.towards(reference_of(model))
    reference = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    direction.towards(reference)
    assert all(torch.equal(direction[name], parameter) for name, parameter in model.named_parameters())
    other = Direction(model, window=4)
    other.load_state_dict(direction.state_dict())
    assert all(torch.equal(other[name], direction[name]) for name in direction)


def test_wrapped_models_half_precision_and_length_one():
    model = patches()
    reference = {name: value.half() for name, value in reference_of(model).items()}
    direction = Direction(torch.compile(model, backend="eager"), normalise=True)
    direction.towards(reference)
    assert sum(float(v.square().sum()) for v in direction.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {f"module.{n}": v for n, v in r.items()}, r"lacks token .*without its wrapper"),
        (lambda r: {n: v for n, v in r.items() if n != "head.bias"}, r"lacks head.bias \(1 names missing, 0 unknown\)"),
        (lambda r: r | {"more": torch.ones(2)}, "names more, which this model does not have"),
        (lambda r: r | {"head.bias": torch.ones(7)}, r"head.bias has shape \(7,\), the model's \(3,\)"),
        (lambda r: r | {"head.bias": r["head.bias"].numpy()}, "head.bias is of the type ndarray; give tensors"),
        (lambda r: None, "the reference is of the type NoneType"),
        (lambda r: r | {"head.bias": torch.full((3,), float("nan"))}, "head.bias has values that are not finite"),
    ],
)
def test_a_reference_that_does_not_fit_changes_nothing(change, message):
    model = patches()
    direction = Direction(model)
    with pytest.raises(HomingError, match=message):
        direction.towards(change(reference_of(model)))
    assert not direction


def test_the_models_own_state_dict_is_no_reference():
    model = patches()
    with pytest.raises(HomingError, match="clone"):
        Direction(model).towards(model.state_dict())
