"""Losses of many kinds: several terms, many labels, given by the model itself, accumulated over batches."""

import pytest
import torch
from alignment_models import batch, direction_of, losses_of, patches
from references import per_sample_loop
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from homing.rates import Alignment, AlignmentError, RateTable

torch.set_num_threads(1)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def observe(model, backward, direction=None):
    alignment = Alignment(model)
    with alignment.observe(direction or direction_of(model)):
        backward(alignment).backward()
    return alignment.values()


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU())
        self.label, self.level = nn.Linear(8, 3), nn.Linear(8, 1)
        self.weigh = nn.Parameter(torch.zeros(2))

    def forward(self, images):
        features = self.body(images)
        return self.label(features), self.level(features)[:, 0]


def two_heads():
    torch.manual_seed(0)
    return TwoHeads().double()


def both(outputs, labels):
    logits, levels = outputs
    return cross_entropy(logits, labels, reduction="none") + 0.4 * mse_loss(levels, labels.double(), reduction="none")


@pytest.mark.parametrize("weights", [None, torch.tensor([0.0, 2.0, 1.0, 0.5, 0.0, 3.0])])
def test_several_losses_added_per_sample(weights):
    model, (images, labels) = two_heads(), batch()

    def total(_):
        losses = both(model(images), labels)
        return losses.mean() if weights is None else (weights * losses).mean()

    expected = per_sample_loop(model, both, images, labels, direction_of(model))
    assert relative(observe(model, total), expected) < 1e-11


def test_several_losses_with_learned_weights():
    model, (images, labels) = two_heads(), batch()

    def weighed(outputs, labels):
        logits, levels = outputs
        one, other = (-model.weigh).exp()
        return one * losses_of(logits, labels) + other * mse_loss(levels, labels.double(), reduction="none")

    expected = per_sample_loop(model, weighed, images, labels, direction_of(model))
    assert relative(observe(model, lambda _: weighed(model(images), labels).mean()), expected) < 1e-12


def test_several_losses_reduced_one_by_one_are_refused_with_what_to_do():
    model, (images, labels) = two_heads(), batch()

    def total(_):
        logits, levels = model(images)
        return cross_entropy(logits, labels) + 0.4 * mse_loss(levels, labels.double())

    with pytest.raises(AlignmentError, match=r"add them per sample first.*alignment\.losses"):
        observe(model, total)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_penalty_on_the_weights_is_no_part_of_a_samples_loss(reduction):
    model, (images, labels) = patches(), batch()

    def total(_):
        penalty = 1e-2 * sum(parameter.square().sum() for parameter in model.parameters())
        return penalty + cross_entropy(model(images), labels, reduction=reduction).mean()

    expected = per_sample_loop(model, losses_of, images, labels, direction_of(model))
    assert relative(observe(model, total), expected) < 1e-12


MARKS = (torch.arange(18).reshape(6, 3) % 4 < 2).double()


def of_many_labels(logits, marks):
    return binary_cross_entropy_with_logits(logits, marks, reduction="none").mean(1)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits: (torch.arange(6.0) * of_many_labels(logits, MARKS)).mean(),
        lambda logits: binary_cross_entropy_with_logits(logits, MARKS),
        lambda logits: nn.BCEWithLogitsLoss()(logits, MARKS),
        lambda logits: nn.BCELoss()(logits.sigmoid(), MARKS),
    ],
    ids=["per sample", "function", "module", "of probabilities"],
)
def test_many_labels(loss):
    model, (images, _) = patches(), batch()
    expected = per_sample_loop(model, of_many_labels, images, MARKS, direction_of(model))
    assert relative(observe(model, lambda _: loss(model(images))), expected) < 1e-11


@pytest.mark.parametrize("settings", [{"weight": torch.ones(3).double()}, {"pos_weight": torch.ones(3).double()}])
def test_many_labels_with_weights_inside_the_reduction_are_refused(settings):
    model, (images, _) = patches(), batch()
    with pytest.raises(AlignmentError, match='reduction="none"'):
        observe(model, lambda _: nn.BCEWithLogitsLoss(**settings)(model(images), MARKS))


class GivesLoss(nn.Module):
    """As models of `transformers` do, with a further term for what it sees inside."""

    def __init__(self, model, inner=0.0):
        super().__init__()
        self.model, self.inner = model, inner

    def forward(self, images, labels):
        logits = self.model(images)
        loss = cross_entropy(logits, labels) / 2
        if self.inner:
            loss = loss + self.inner * mse_loss(logits, torch.zeros_like(logits))
        return logits, loss


def test_a_loss_that_the_model_gives_itself():
    model, (images, labels) = GivesLoss(patches()), batch()
    direction = direction_of(model)
    plain = {name.removeprefix("model."): tensor for name, tensor in direction.items()}
    expected = per_sample_loop(model.model, losses_of, images, labels, plain)
    assert relative(observe(model, lambda _: model(images, labels)[1] * 3, direction), expected) < 1e-12
    two = GivesLoss(model.model, inner=0.1)
    with pytest.raises(AlignmentError, match="add them per sample first"):
        observe(two, lambda _: two(images, labels)[1], direction)


def test_named_losses_stand_for_those_that_were_found_before():
    model, (images, labels) = GivesLoss(patches()), batch()
    direction = direction_of(model)
    plain = {name.removeprefix("model."): tensor for name, tensor in direction.items()}
    expected = per_sample_loop(model.model, losses_of, images, labels, plain)

    def total(alignment):
        logits, _ = model(images, labels)  # its own loss is left
        return alignment.losses(losses_of(logits, labels)).sum()

    assert relative(observe(model, total, direction), expected) < 1e-12


def test_accumulated_gradients_and_a_table_of_rates():
    model, (images, labels) = patches(), batch()
    direction, alignment = direction_of(model), Alignment(model)
    expected = per_sample_loop(model, losses_of, images, labels, direction)
    one, whole, found = RateTable(num_rows=8), RateTable(num_rows=8), []
    rows, parts = torch.tensor([3, 1, 7, 0, 2, 5]), (slice(0, 4), slice(4, 6))
    for part in parts:
        with alignment.observe(direction):
            ((one[rows[part]] * losses_of(model(images[part]), labels[part])).mean() / len(parts)).backward()
        found.append(alignment.values())
        one.update(rows[part], found[-1])
        whole.update(rows[part], expected[part])
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for part in parts:
        (losses_of(model(images[part]), labels[part]).mean() / len(parts)).backward()
    assert relative(torch.cat(found), expected) < 1e-12
    assert torch.equal(one.visits, torch.tensor([1, 1, 1, 1, 0, 1, 0, 1]).int())
    assert torch.allclose(one.rates, whole.rates)
    assert all(torch.allclose(p.grad, g, atol=1e-12) for p, g in zip(model.parameters(), gradients, strict=True))
