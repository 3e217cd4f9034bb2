"""The one training loop: equal to plain torch where rates are uniform, and safe where something is not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensor_inputs import (
    NUM_SOURCE,
    NUM_TARGET,
    TensorInputs,
    fine_tuning,
    pictures_and_labels,
    small_model,
    uniform_plan,
)
from torch import nn
from torch.nn import functional

from homing.errors import DivergedError, Interrupted
from homing.models.parts import batch_norms
from homing.rates.order import EpochOrder
from homing.training.plan import Phase, TrainingPlan
from homing.training.step import Settings


def plain_fine_tuning(model: nn.Module, num_steps: int, batch_size: int, target_weight: int, seed: int) -> None:
    """Fine-tuning as one would write it in torch: pool both, take each target image `target_weight` times."""
    pictures, labels = pictures_and_labels()
    rows = np.array([1] * NUM_SOURCE + [target_weight] * NUM_TARGET)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step, epoch = 0, 0
    while step < num_steps:
        order, _ = EpochOrder(rows, seed=seed, epoch=epoch)[:]
        for start in range(0, len(order), batch_size):
            if step == num_steps:
                return
            batch = torch.from_numpy(order[start : start + batch_size])
            model.train()
            for norm in batch_norms(model):
                norm.eval()
            loss = functional.cross_entropy(model(pictures[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        epoch += 1


@pytest.mark.parametrize("apply", ["sample", "weight"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_uniform_rates_equal_a_plain_torch_loop_bit_for_bit(backbone, apply):
    arguments = {"img_size": 32} if backbone == "test_vit" else {}
    ours, plain = small_model(backbone, **arguments), small_model(backbone, **arguments)
    settings = Settings(
        num_steps=12, batch_size=8, optimizer="momentum", learning_rate=0.05, weight_decay=0.0, schedule="constant",
        warmup=0.0, seed=5,
    )  # fmt: skip
    fine_tuning(ours, uniform_plan(2, apply=apply), settings).run()
    plain_fine_tuning(plain, num_steps=12, batch_size=8, target_weight=2, seed=5)
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_gradient_accumulation_gives_the_step_of_the_large_batch():
    whole, parts = small_model().double(), small_model().double()
    for model, accumulate in ((whole, 1), (parts, 3)):
        pictures, _ = pictures_and_labels()
        settings = Settings(num_steps=6, batch_size=8, accumulate=accumulate, optimizer="sgd", learning_rate=0.05)
        tuning = fine_tuning(model, uniform_plan(), settings)
        tuning.inputs = TensorInputs(pictures.double())
        tuning.run()
    for name, value in whole.state_dict().items():  # float64; only the order of additions differs
        assert torch.allclose(parts.state_dict()[name], value, rtol=1e-6, atol=1e-9), name


def test_every_row_is_visited_as_often_as_its_count_says():
    tuning = fine_tuning(small_model(), uniform_plan(3), Settings(num_steps=10, batch_size=8))
    tuning.run()  # 23 + 3 * 5 = 38 visits an epoch, 5 steps
    assert tuning.visits.tolist() == [2] * NUM_SOURCE + [6] * NUM_TARGET


def test_a_rate_of_zero_leaves_a_sample_out():
    rates = torch.ones(NUM_SOURCE)
    rates[:7] = 0
    for apply in ("sample", "weight"):
        tuning = fine_tuning(
            small_model(), TrainingPlan((Phase(rates, 1),), apply), Settings(num_steps=9, batch_size=4)
        )
        tuning.run()
        assert tuning.visits[:7].sum() == 0
        assert tuning.visits[7:].min() > 0


def test_weights_multiply_the_loss_of_their_own_sample():
    """A batch of everything with rates r steps along sum r_i grad_i / B, as written out by autograd."""
    pictures, labels = pictures_and_labels()
    rates = torch.linspace(0.1, 2, NUM_SOURCE)
    ours, plain = small_model(), small_model()
    plan = TrainingPlan((Phase(rates, 1.0),), "weight")
    settings = Settings(
        num_steps=1, batch_size=28, optimizer="momentum", learning_rate=0.1, weight_decay=0.0, warmup=0.0
    )
    fine_tuning(ours, plan, settings).run()
    plain.train()
    for norm in batch_norms(plain):
        norm.eval()
    losses = functional.cross_entropy(plain(pictures), labels, reduction="none")
    (torch.cat([rates, torch.ones(NUM_TARGET)]) * losses).mean().backward()
    for (name, parameter), trained in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(trained, parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6), name


def test_phases_follow_each_other_at_their_share_of_the_steps():
    source, target = Phase(torch.ones(NUM_SOURCE), 0.0, share=0.5), Phase(torch.zeros(NUM_SOURCE), 4.0, share=0.5)
    tuning = fine_tuning(small_model(), TrainingPlan((source, target)), Settings(num_steps=10, batch_size=4))
    tuning.run()
    assert tuning.visits[:NUM_SOURCE].sum() == 5 * 4
    assert tuning.visits[NUM_SOURCE:].sum() == 5 * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stops_before_the_update_and_names_the_samples(value):
    pictures, _ = pictures_and_labels()
    pictures[4] = value
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuning = fine_tuning(
        model, uniform_plan(), Settings(num_steps=9, batch_size=28), names=lambda row: f"picture-{row}"
    )
    tuning.inputs = TensorInputs(pictures)
    with pytest.raises(DivergedError, match=r"step \d+: .*stopped before the update.*") as told:
        tuning.run()
    assert "picture-4" in str(told.value)
    if tuning.step == 0:
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_stop_is_honoured_after_the_step_at_hand():
    tuning = fine_tuning(small_model(), uniform_plan(), Settings(num_steps=9, batch_size=8), stop_asked=lambda: True)
    with pytest.raises(Interrupted, match="stopped after step 1 of 9"):
        tuning.run()


def test_bf16_trains_and_keeps_parameters_in_fp32():
    model = small_model()
    tuning = fine_tuning(model, uniform_plan(), Settings(num_steps=3, batch_size=8, precision="bf16"))
    tuning.run()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_layer_decay_slows_the_lower_layers():
    tuning = fine_tuning(
        small_model(), uniform_plan(), Settings(num_steps=3, batch_size=8, layer_decay=0.5, warmup=0.0)
    )
    tuning.run()
    learning_rates = [group["lr"] for group in tuning.optimizer.param_groups]
    assert min(learning_rates) < 0.6 * max(learning_rates)


def test_mixup_trains_with_uniform_rates():
    tuning = fine_tuning(small_model(), uniform_plan(), Settings(num_steps=3, batch_size=8, mixup=0.4))
    tuning.run()
    assert tuning.step == 3
