"""Bad input and steps that have no per-sample gradient are refused by name."""

import pytest
import torch
from alignment_models import batch, direction_of, losses_of, patches
from references import per_sample_loop
from torch import nn

from homing.errors import DivergedError
from homing.rates import Alignment, AlignmentError

torch.set_num_threads(1)


def step(model, alignment, direction, images, labels):
    with alignment.observe(direction):
        losses_of(model(images), labels).mean().backward()
    return alignment.values()


def test_no_trainable_parameters():
    with pytest.raises(AlignmentError, match="no trainable parameters"):
        Alignment(patches().requires_grad_(False))


@pytest.mark.parametrize("settings", [{"scope": "middle"}, {"scope": lambda name: False}, {"observe_every": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(AlignmentError, match=r"scope|observe_every"):
        Alignment(patches(), **settings)


def test_last_stage_of_a_model_that_does_not_say():
    with pytest.raises(AlignmentError, match="feature_info"):
        Alignment(patches(), scope="last_stage")


def test_direction_lacks_a_name():
    model = patches()
    direction = direction_of(model)
    del direction["positions"]
    with pytest.raises(AlignmentError, match=r"lacks 1 of .*positions"), Alignment(model).observe(direction):
        pass


def test_direction_of_another_shape():
    model = patches()
    direction = direction_of(model) | {"head.bias": torch.zeros(4)}
    with pytest.raises(AlignmentError, match=r"head.bias has shape \(4,\)"), Alignment(model).observe(direction):
        pass


def test_direction_of_something_else_than_tensors():
    model = patches()
    direction = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    with (
        pytest.raises(AlignmentError, match="is of the type ndarray; give tensors"),
        Alignment(model).observe(direction),
    ):
        pass


def test_a_direction_that_is_none():
    with pytest.raises(AlignmentError, match="is of the type NoneType; give a Direction"):
        step(patches(), Alignment(patches()), None, *batch())


def test_another_model_than_the_observed_one():
    alignment, other = Alignment(patches()), patches()
    with pytest.raises(AlignmentError, match="the observed model had no part; call the very model"):
        step(other, alignment, direction_of(other), *batch())


@pytest.mark.parametrize("what", ["weight", "image"])
def test_what_is_not_finite_from_the_first_step_on_is_called_so(what):
    model, (images, labels) = patches(), batch()
    with torch.no_grad():
        (images[1] if what == "image" else model.head.weight).view(-1)[0] = torch.nan
    with pytest.raises(DivergedError, match="samples are not finite"):
        step(model, Alignment(model), direction_of(patches()), images, labels)


def test_an_empty_batch():
    model = patches()
    with pytest.raises(AlignmentError, match="the batch is empty"), Alignment(model).observe(direction_of(model)):
        model(batch()[0][:0])


def test_values_before_any_observation():
    with pytest.raises(AlignmentError, match="nothing was observed"):
        Alignment(patches()).values()


def test_values_before_a_backward():
    model, (images, labels) = patches(), batch()
    alignment = Alignment(model)
    with alignment.observe(direction_of(model)):
        losses_of(model(images), labels).mean()
    with pytest.raises(AlignmentError, match="no backward pass"):
        alignment.values()


def test_values_after_two_backwards():
    model, (images, labels) = patches(), batch()
    alignment = Alignment(model)
    with alignment.observe(direction_of(model)):
        loss = losses_of(model(images), labels).mean()
        loss.backward(retain_graph=True)
        loss.backward()
    with pytest.raises(AlignmentError, match="2 backward passes"):
        alignment.values()


def test_two_forward_passes():
    model, (images, _) = patches(), batch()
    with pytest.raises(AlignmentError, match="called twice"), Alignment(model).observe(direction_of(model)):
        model(images) + model(images)


def test_losses_that_are_no_vector():
    model, (images, _) = patches(), batch()
    with pytest.raises(AlignmentError, match="one number per sample"), Alignment(model).observe(direction_of(model)):
        model(images).square().mean().backward()


def test_class_weights_inside_a_reduction():
    model, (images, labels) = patches(), batch()
    weight = torch.rand(3, dtype=torch.float64)
    with pytest.raises(AlignmentError, match='reduction="none"'), Alignment(model).observe(direction_of(model)):
        nn.functional.cross_entropy(model(images), labels, weight=weight)


def test_batch_norm_in_training_mode():
    model, (images, labels) = patches(), batch()
    model.norm.train()
    with pytest.raises(AlignmentError, match="batch norm"):
        step(model, Alignment(model), direction_of(model), images, labels)


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        return self.linear(x.transpose(0, 1)).mean(0)


@pytest.mark.parametrize("length", [5, 6])
def test_batch_not_in_the_first_dimension(length):
    model = SequenceFirst()
    with pytest.raises(AlignmentError, match=r"linear.*first dimension"):
        step(model, Alignment(model), direction_of(model), torch.randn(3, length, 3), torch.arange(3))


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        return self.linear(x - x.mean(0))


def test_samples_that_are_mixed():
    model = Mixing()
    with pytest.raises(AlignmentError, match="samples are mixed"):
        step(model, Alignment(model), direction_of(model), torch.randn(3, 3), torch.arange(3))


def test_values_that_are_not_finite():
    model, (images, labels) = patches(), batch()
    images[4] = float("inf")
    with pytest.raises(DivergedError, match=r"1 of 6 samples.*position 4"):
        step(model, Alignment(model), direction_of(model), images, labels)


class DroppedPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 64))
        self.linear = nn.Linear(64, 3)

    def forward(self, x):
        return self.linear(x + nn.functional.dropout(self.positions, 0.5))


def test_chance_that_does_not_repeat():
    model = DroppedPositions()
    with pytest.raises(AlignmentError, match="dropout"):
        step(model, Alignment(model), direction_of(model), torch.randn(3, 64), torch.arange(3))


class Attending(nn.Module):
    def __init__(self, batch_first=True, dropout=0.0, need_weights=True):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, dropout=dropout)
        self.head = nn.Linear(8, 3)
        self.need_weights = need_weights

    def forward(self, x):
        x = x if self.attention.batch_first else x.transpose(0, 1)
        y = self.attention(x, x, x, need_weights=self.need_weights)[0]
        return self.head(y.mean(1 if self.attention.batch_first else 0))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_torch_s_own_attention_is_exact(batch_first, need_weights):
    torch.manual_seed(0)
    model = Attending(batch_first, need_weights=need_weights).double()
    tokens, labels = torch.randn(4, 6, 8, dtype=torch.float64), torch.arange(4) % 3
    direction, alignment = direction_of(model), Alignment(model)
    found = step(model, alignment, direction, tokens, labels)
    assert torch.allclose(found, per_sample_loop(model, losses_of, tokens, labels, direction), rtol=1e-10)
    assert alignment.coverage().parameters == 1.0


def test_dropout_inside_of_a_call_that_has_to_be_repeated():
    model = Attending(dropout=0.5)
    tokens, labels = torch.randn(4, 6, 8), torch.arange(4) % 3
    with pytest.raises(AlignmentError, match=r"attention.*attention.in_proj_bias.*dropout"):
        step(model, Alignment(model), direction_of(model), tokens, labels)
    head = Alignment(model, scope=lambda name: name.startswith("head"))
    assert step(model, head, direction_of(model), tokens, labels).isfinite().all()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(0)


class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(Square.apply(x, self.gain))


def test_parameters_that_cannot_be_followed_are_listed():
    model = Opaque()
    alignment = Alignment(model)
    with pytest.warns(UserWarning, match="left out: gain"):
        step(model, alignment, direction_of(model), torch.randn(3, 3), torch.arange(3))
    assert alignment.covered == ("linear.weight", "linear.bias")
    assert alignment.coverage().parameters == 12 / 15


class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x):
        return self.recurrent(x)[1][0][-1]


def test_further_outputs_of_a_call():
    model = LastState()
    with pytest.raises(AlignmentError, match=r"further output of lstm"):
        step(model, Alignment(model), direction_of(model), torch.randn(3, 5, 3), torch.arange(3))
