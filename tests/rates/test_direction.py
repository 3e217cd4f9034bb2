"""The direction is the target's preconditioned gradient, and leaves training alone."""

import pytest
import timm.optim
import torch
import torch.distributed as dist
from alignment_models import batch, direction_of, losses_of, patches
from torch.nn.parallel import DistributedDataParallel

from homing.errors import CheckpointError, DivergedError, HomingError
from homing.rates import Alignment, Direction
from homing.rates.alignment.sixteen_bits import SixteenBits
from processes import together

torch.set_num_threads(1)


def target_loss(model):
    return losses_of(model(batch()[0]), batch()[1]).mean()


def gradients(model):
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(target_loss(model), list(named.values())), strict=True))


def train(model, optimizer, steps=3):
    for _ in range(steps):
        target_loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_keeps_the_gradient(momentum):
    model = patches()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=momentum)
    train(model, optimizer)
    direction = Direction(model, optimizer)
    direction.update(target_loss(model))
    expected = gradients(model)
    assert set(direction) == set(expected)
    assert all(torch.allclose(direction[name], expected[name], rtol=1e-10) for name in expected)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam])
def test_adam_divides_by_the_root_of_its_second_moment(kind):
    model = patches()
    optimizer = kind(model.parameters(), 0.01, betas=(0.9, 0.99))
    train(model, optimizer)
    direction = Direction(model, optimizer)
    direction.update(target_loss(model))
    for (name, gradient), parameter in zip(gradients(model).items(), model.parameters(), strict=True):
        second = optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.99**3)
        assert torch.allclose(direction[name], gradient / (second.sqrt() + 1e-8), rtol=1e-10)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "lamb", "adabelief", "rmsproptf", "adopt", "adan"])
def test_timm_optimizers_with_second_moments_are_read(name):
    model = patches(torch.float32)
    optimizer = timm.optim.create_optimizer_v2(model, opt=name, lr=1e-3)
    for _ in range(3):
        losses_of(model(batch()[0].float()), batch()[1]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    direction = Direction(model, optimizer)
    loss = losses_of(model(batch()[0].float()), batch()[1]).mean()
    plain = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    direction.update(loss)
    assert all(v.isfinite().all() for v in direction.values())
    assert not torch.allclose(direction["head.weight"] / direction["head.weight"].norm(), plain[-2] / plain[-2].norm())


def test_an_optimizer_that_cannot_be_read_warns_once_and_leaves_the_gradient():
    model = patches()
    optimizer = timm.optim.create_optimizer_v2(model, opt="lion", lr=1e-3, weight_decay=0.0)
    train(model, optimizer)
    direction = Direction(model, optimizer)
    with pytest.warns(UserWarning, match="Lion keeps no second moments"):
        direction.update(target_loss(model))
    direction.update(target_loss(model))  # warns no more
    assert all(torch.allclose(direction[name], gradient) for name, gradient in gradients(model).items())


def test_before_the_first_step_adam_scales_each_tensor_to_its_own_size():
    model = patches()
    direction = Direction(model, torch.optim.AdamW(model.parameters()))
    direction.update(target_loss(model))
    for name, gradient in gradients(model).items():
        assert torch.allclose(direction[name], gradient / (gradient.square().mean().sqrt() + 1e-8), rtol=1e-8)


def test_layer_decay_weighs_the_groups():
    model = patches()
    groups = [
        {"params": [p for n, p in model.named_parameters() if n.startswith("head")], "lr": 0.1},
        {"params": [p for n, p in model.named_parameters() if not n.startswith("head")], "lr": 0.01},
    ]
    direction = Direction(model, torch.optim.SGD(groups))
    direction.update(target_loss(model))
    expected = gradients(model)
    assert torch.allclose(direction["head.weight"], expected["head.weight"])
    assert torch.allclose(direction["stem.weight"], 0.1 * expected["stem.weight"])


def test_averages_over_the_window():
    model = patches()
    direction = Direction(model, window=2)
    first = gradients(model)["head.weight"]
    direction.update(target_loss(model))
    assert torch.allclose(direction["head.weight"], first)
    direction.update(4 * target_loss(model))
    assert torch.allclose(direction["head.weight"], (first + 2 * 4 * first) / 3)


FACTORS = (1.0, -0.5, 2.0, 0.3, 1.2)


def large_model():
    """fp32, channels-last convolutions and linear layers of which some are large, and one row of some is 0."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3), torch.nn.AdaptiveAvgPool2d(1)]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64, 512), torch.nn.Linear(512, 10))
    return model.to(memory_format=torch.channels_last)


def large_loss(model, factor=1.0):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return factor * torch.nn.functional.cross_entropy(model(images)[:, :9], torch.arange(4))


def test_large_tensors_take_half_their_memory_and_point_the_same_way():
    model = large_model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    large_loss(model).backward()
    optimizer.step()
    whole, half = Direction(model, optimizer, dtype=torch.float32), Direction(model, optimizer)
    for factor in FACTORS:
        for each in (whole, half):
            each.update(large_loss(model, factor))
    sizes = [sum(t.nbytes for t in kept_by(direction)) for direction in (whole, half)]
    assert sizes[1] < 0.58 * sizes[0]  # small ones are as they were
    for name, exact in whole.items():
        assert half[name].dtype == exact.dtype
        assert half[name].stride() == exact.stride()
        largest = exact.flatten(1).abs().amax(1) if exact.ndim > 1 else exact.abs().max()
        off = (half[name] - exact).flatten(min(1, exact.ndim - 1)).abs().amax(-1)
        assert bool((off <= 4 * 2**-15 * largest).all()), name  # 2⁻¹⁵ an update, over a window of 4
        assert (half[name] - exact).norm() <= 1e-3 * exact.norm()


def kept_by(direction):
    """The tensors in memory."""
    for average in direction._averages.values():
        yield from (average.codes, average.scale) if isinstance(average, SixteenBits) else (average,)


@pytest.mark.parametrize("normalise", [False, True])
def test_state_of_rounded_tensors_goes_on_bit_for_bit(normalise):
    model = large_model()
    one, other = (Direction(model, window=3, normalise=normalise) for _ in range(2))
    one.update(large_loss(model))
    other.load_state_dict(one.state_dict())
    for _ in range(2):
        assert all(torch.equal(one[name], other[name]) for name in one)
        for direction in (one, other):
            direction.update(large_loss(model, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_averages_are_kept_in_the_type_that_is_asked_for(dtype):
    direction = Direction(large_model(), dtype=dtype)
    direction.update(large_loss(direction.model))
    assert {tensor.dtype for tensor in kept_by(direction)} == {dtype}
    assert {tensor.dtype for tensor in direction.values()} == {torch.float32}


def test_a_model_of_sixteen_bits_is_averaged_in_the_type_that_is_asked_for():
    torch.manual_seed(0)
    model, keep, exact = torch.nn.Linear(8, 3).bfloat16(), 1 - 1 / 300, torch.zeros(3, 8, dtype=torch.float64)
    one, other = (Direction(model, window=300, dtype=torch.float32) for _ in range(2))
    for number in range(1, 301):
        loss = torch.nn.functional.cross_entropy(model(torch.randn(4, 8).bfloat16()), torch.arange(4) % 3)
        (gradient,) = torch.autograd.grad(loss, model.weight, retain_graph=True)
        exact.lerp_(gradient.double(), (1 - keep) / (1 - keep**number))
        one.update(loss)
    assert one["weight"].dtype == torch.bfloat16
    assert (one["weight"] - exact).norm() < 2**-8 * exact.norm()  # summed up in bfloat16: a tenth and more
    other.load_state_dict(one.state_dict())
    again = other.state_dict()
    assert all(torch.equal(again[name], value) for name, value in one.state_dict().items())
    assert again["average.weight"].dtype == torch.float32


def test_a_normalised_state_of_an_older_version_is_taken_up():
    model = patches()
    one, other = (Direction(model, window=3, normalise=True) for _ in range(2))
    one.update(target_loss(model))
    state, length = one.state_dict(), one._length
    old = {name: value / length for name, value in state.items()}
    other.load_state_dict(old | {"num_updates_and_length": torch.tensor([1.0, length], dtype=torch.float64)})
    for direction in (one, other):
        direction.update(2 * target_loss(model))
    assert all(torch.allclose(one[name], other[name], rtol=1e-12) for name in one)


def test_each_gradient_counts_as_the_optimizer_would_have_stepped_then():
    model = patches()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    train(model, optimizer)
    direction, pulls = Direction(model, optimizer, window=2), []
    for factor in (1.0, 4.0):
        alone = Direction(model, optimizer, window=1)
        for each in (direction, alone):
            each.update(factor * target_loss(model))
        pulls.append(alone["head.weight"].clone())
        train(model, optimizer, steps=1)
    assert torch.allclose(direction["head.weight"], (pulls[0] + 2 * pulls[1]) / 3, rtol=1e-10)


def test_parameters_that_share_one_gradient_are_preconditioned_once_each():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))

    model = Sum()
    optimizer = torch.optim.SGD([{"params": [model.one], "lr": 0.1}, {"params": [model.other], "lr": 0.01}])
    direction = Direction(model, optimizer)
    direction.update((model.one + model.other).sum())
    assert torch.allclose(direction["one"], torch.ones(3))
    assert torch.allclose(direction["other"], torch.full((3,), 0.1))


def test_normalised_has_length_one():
    model = patches()
    direction = Direction(model, normalise=True)
    for factor in (1.0, 5.0):
        direction.update(factor * target_loss(model))
        assert sum(float(v.square().sum()) for v in direction.values()) == pytest.approx(1.0)


def test_gradients_that_training_accumulates_are_left_alone():
    model = patches()
    target_loss(model).backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    Direction(model).update(target_loss(model))
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), before, strict=True))


def test_frozen_parameters_are_left_out():
    model = patches()
    model.stem.requires_grad_(False)
    direction = Direction(model)
    direction.update(target_loss(model))
    assert not any(name.startswith("stem") for name in direction)
    with Alignment(model).observe(direction):
        target_loss(model).backward()


def test_wrapped_models_have_plain_names():
    model = patches()
    direction = Direction(torch.compile(model, backend="eager"))
    direction.update(target_loss(model))
    assert set(direction) == set(direction_of(model))


def test_state_goes_on_bit_for_bit():
    model = patches()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer)
    one, other = Direction(model, optimizer, window=3), Direction(model, optimizer, window=3)
    one.update(target_loss(model))
    other.load_state_dict(one.state_dict())
    for direction in (one, other):
        direction.update(2 * target_loss(model))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "change",
    [
        {"average.nothing": torch.ones(2)},
        {"average.head.bias": torch.ones(7)},
        {"average.head.bias": torch.full((3,), float("nan"))},
        {"other": torch.ones(2)},
        {"num_updates_and_length": torch.tensor([torch.nan, 1.0])},
    ],
)
def test_state_of_another_model(change):
    direction = Direction(patches())
    direction.update(target_loss(direction.model))
    with pytest.raises(CheckpointError, match="direction state"):
        Direction(patches()).load_state_dict(direction.state_dict() | change)


def test_bad_input():
    model = patches()
    with pytest.raises(HomingError, match="window is 0"):
        Direction(model, window=0)
    with pytest.raises(HomingError, match="window is inf"):
        Direction(model, window=float("inf"))
    direction = Direction(model)
    with pytest.raises(DivergedError, match="not finite"):
        direction.update(target_loss(model) * float("inf"))
    with pytest.raises(HomingError, match=r"shape \(\) and no graph"):
        direction.update(target_loss(model).detach())
    with pytest.raises(HomingError, match=r"the target's loss has shape \(3,\); give the mean loss"):
        direction.update(target_loss(model).expand(3))
    with pytest.raises(HomingError, match="no parameter of this model has a part"):
        direction.update(target_loss(patches()))
    assert not direction
    assert "head.weight" not in direction
    with pytest.raises(HomingError, match="no trainable parameters"):
        Direction(patches().requires_grad_(False))


def _update(folder):
    model, (images, labels) = patches(), batch()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    direction = Direction(wrapped)
    rank = dist.get_rank()
    mine = slice(rank * 3, rank * 3 + 3)
    for _ in range(2):
        direction.update(losses_of(direction.model(images[mine]), labels[mine]).mean())
        losses_of(wrapped(images[mine]), labels[mine]).mean().backward()
    torch.save(dict(direction), folder / f"{rank}.pt")


def test_two_processes_share_the_direction_of_one(tmp_path):
    together(_update, 2, tmp_path)
    model = patches()
    direction = Direction(model)
    direction.update(target_loss(model))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.allclose(found[name], direction[name], rtol=1e-10, atol=1e-14) for name in direction)
