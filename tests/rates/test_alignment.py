"""What an alignment is invariant to: the batch, the loss's weights and reduction, what happens before and after."""

import copy
import gc
import pickle
import weakref

import pytest
import timm
import torch
from alignment_models import batch, direction_of, losses_of, patches
from references import per_sample_loop
from timm import loss as timm_loss
from torch import nn
from torch.nn.functional import cross_entropy

from homing.rates import Alignment, AlignmentError

torch.set_num_threads(1)


def observe(model, images, labels, direction, reduce=torch.mean, **settings):
    alignment = Alignment(model, **settings)
    with alignment.observe(direction):
        reduce(losses_of(model(images), labels)).backward()
    return alignment.values()


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_every_kind_of_parameter_is_covered_and_exact():
    model, (images, labels) = patches(), batch()
    direction = direction_of(model)
    alignment = Alignment(model)
    with alignment.observe(direction):
        losses_of(model(images), labels).mean().backward()
    assert relative(alignment.values(), per_sample_loop(model, losses_of, images, labels, direction)) < 1e-12
    assert alignment.covered == tuple(name for name, _ in model.named_parameters())
    assert alignment.coverage().parameters == 1.0
    assert alignment.coverage().direction == 1.0


def test_fp32_is_within_its_rounding():
    model, (images, labels) = patches(), batch()
    direction = direction_of(model)
    expected = per_sample_loop(model, losses_of, images, labels, direction)
    found = observe(model.float(), images.float(), labels, {name: v.float() for name, v in direction.items()})
    assert found.dtype == torch.float32
    assert relative(found.double(), expected) < 1e-4


def test_permuting_the_batch_permutes_the_values():
    model, (images, labels) = patches(), batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    whole = observe(model, images, labels, direction_of(model))
    assert relative(observe(model, images[order], labels[order], direction_of(model)), whole[order]) < 1e-12


def test_splitting_the_batch_changes_nothing():
    model, (images, labels) = patches(), batch()
    whole = observe(model, images, labels, direction_of(model))
    for size in (1, 2, 4):
        parts = [
            observe(model, x, y, direction_of(model))
            for x, y in zip(images.split(size), labels.split(size), strict=True)
        ]
        assert relative(torch.cat(parts), whole) < 1e-10


def test_weights_and_reductions_are_undone():
    model, (images, labels) = patches(), batch()
    plain = observe(model, images, labels, direction_of(model))
    weights = torch.tensor([0.0, 1.0, 3.0, 1e-3, 0.0, 0.5], dtype=torch.float64)
    reductions = [
        torch.sum,
        lambda losses: (weights * losses).mean(),
        lambda losses: (losses * weights).sum() / weights.sum() / 8,
        lambda losses: losses @ weights,
        lambda losses: losses[labels > 0].mean(),
        lambda losses: 0 * losses.mean() + (weights * losses).mean(),
    ]
    for reduce in reductions:
        assert relative(observe(model, images, labels, direction_of(model), reduce), plain) < 1e-10


def test_losses_reduced_in_the_call_itself():
    model, (images, labels) = patches(), batch()
    plain = observe(model, images, labels, direction_of(model))
    labels_with_hole = labels.clone()
    labels_with_hole[2] = -100
    for reduction in ("mean", "sum"):
        alignment = Alignment(model)
        with alignment.observe(direction_of(model)):
            cross_entropy(model(images), labels_with_hole, reduction=reduction).backward()
        expected = plain.clone()
        expected[2] = 0
        assert relative(alignment.values(), expected) < 1e-12


def test_label_smoothing_written_by_hand_is_found():
    model, (images, labels) = patches(), batch()
    smoothing = timm_loss.LabelSmoothingCrossEntropy(0.1)
    alignment = Alignment(model)
    with alignment.observe(direction_of(model)):
        smoothing(model(images), labels).backward()
    expected = per_sample_loop(
        model,
        lambda z, y: cross_entropy(z, y, reduction="none", label_smoothing=0.1),
        images,
        labels,
        direction_of(model),
    )
    assert relative(alignment.values(), expected) < 1e-12


def test_all_rates_zero_still_observes():
    model, (images, labels) = patches(torch.float32), batch(dtype=torch.float32)
    plain = observe(model, images, labels, direction_of(model))
    model.zero_grad()
    found = observe(model, images, labels, direction_of(model), lambda losses: (0 * losses).sum())
    assert relative(found, plain) < 1e-4
    assert all(p.grad.abs().max() < 1e-6 * p.abs().max() + 1e-6 for p in model.parameters())


def test_the_gradient_that_trains_is_the_plain_one():
    model, (images, labels) = patches(), batch()
    weights = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    (weights * losses_of(model(images), labels)).mean().backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    observe(model, images, labels, direction_of(model), lambda losses: (weights * losses).mean())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, plain[name], rtol=1e-12, atol=1e-14)


def test_gradient_accumulation_adds_gradients_and_keeps_values_apart():
    model, (images, labels) = patches(), batch()
    whole = observe(model, images, labels, direction_of(model))
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    first = observe(model, images[:3], labels[:3], direction_of(model), lambda losses: losses.mean() / 2)
    second = observe(model, images[3:], labels[3:], direction_of(model), lambda losses: losses.mean() / 2)
    assert relative(torch.cat([first, second]), whole) < 1e-10
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


def test_sum_over_the_batch_is_the_directional_derivative():
    model, (images, labels) = patches(), batch()
    direction = direction_of(model)
    values = observe(model, images, labels, direction, torch.sum)
    total = sum((direction[name] * parameter.grad).sum() for name, parameter in model.named_parameters())
    assert torch.allclose(values.sum(), total, rtol=1e-10)


def test_zero_for_a_direction_orthogonal_to_the_gradient():
    model, (images, labels) = patches(), batch(1)
    direction = direction_of(model)
    losses_of(model(images), labels).sum().backward()
    gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
    share = sum((direction[n] * g).sum() for n, g in gradient.items()) / sum(
        g.square().sum() for g in gradient.values()
    )
    orthogonal = {name: direction[name] - share * g for name, g in gradient.items()}
    assert abs(float(observe(model, images, labels, orthogonal))) < 1e-10


def test_a_regulariser_on_the_parameters_belongs_to_no_sample():
    model, (images, labels) = patches(), batch()
    plain = observe(model, images, labels, direction_of(model))
    found = observe(
        model, images, labels, direction_of(model), lambda losses: losses.mean() + model.head.weight.square().sum()
    )
    assert relative(found, plain) < 1e-12


def test_a_copy_has_observed_nothing_yet():
    model, (images, labels) = patches(), batch()
    alignment = Alignment(model)
    with alignment.observe(direction_of(model)):
        losses_of(model(images), labels).mean().backward()
    for copied in (copy.deepcopy(alignment), pickle.loads(pickle.dumps(alignment))):  # noqa: S301
        with pytest.raises(AlignmentError, match="nothing was observed yet"):
            copied.values()
    assert len(alignment.values()) == len(images)


def test_scopes_add_up():
    model, (images, labels) = patches(), batch()
    head = observe(model, images, labels, direction_of(model), scope="head")
    rest = observe(model, images, labels, direction_of(model), scope=lambda name: not name.startswith("head"))
    assert relative(head + rest, observe(model, images, labels, direction_of(model))) < 1e-12


def test_last_stage_of_a_timm_model_takes_its_last_stage_and_head():
    model = timm.create_model("test_resnet", num_classes=3).eval()
    alignment = Alignment(model, scope="last_stage")
    with alignment.observe(direction_of(model)):
        losses_of(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])).mean().backward()
    stages = {name.split(".")[0] for name in alignment.covered}
    assert stages == {"layer4", "fc"}
    assert 0 < alignment.coverage().parameters < 1


def test_frozen_parameters_need_no_direction():
    model, (images, labels) = patches(), batch()
    for parameter in (*model.stem.parameters(), model.token):
        parameter.requires_grad_(False)
    direction = {n: v for n, v in direction_of(model).items() if not n.startswith(("stem", "token"))}
    found = observe(model, images, labels, direction)
    assert relative(found, per_sample_loop(model, losses_of, images, labels, direction)) < 1e-12


def test_parts_called_one_by_one_with_named_losses():
    model = timm.create_model("test_vit", num_classes=3, img_size=32).double().eval()
    images, labels = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.arange(3)
    alignment = Alignment(model)
    with alignment.observe(direction_of(model)):
        losses = alignment.losses(losses_of(model.forward_head(model.forward_features(images)), labels))
        (torch.rand(3) * losses).sum().backward()
    expected = per_sample_loop(model, losses_of, images, labels, direction_of(model))
    assert relative(alignment.values(), expected) < 1e-12


def test_observation_leaves_no_hook_and_no_random_draw_behind():
    model, (images, labels) = patches(), batch()
    state = torch.get_rng_state()
    observe(model, images, labels, direction_of(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    assert all(not parameter._backward_hooks for parameter in model.parameters())


def test_due_every_kth_step():
    alignment = Alignment(patches(), observe_every=4)
    assert [step for step in range(10) if alignment.due(step)] == [0, 4, 8]


def test_nothing_of_an_observed_step_outlives_the_next_one():
    """Circles through autograd's graph are out of sight of Python's collector: each would keep its step for ever."""
    model, images = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(6, 4)
    alignment = Alignment(model)
    direction = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    steps = []
    for _ in range(3):
        with alignment.observe(direction):
            losses = cross_entropy(model(images), torch.arange(6) % 3, reduction="none")
            (torch.rand(6) * losses).mean().backward()
        alignment.values()
        steps.append(weakref.ref(alignment._step))
        del losses
    gc.collect()
    assert [step() is None for step in steps] == [True, True, False]
