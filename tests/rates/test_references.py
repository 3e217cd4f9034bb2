"""Four ways to the alignments agree, and the closed form of the head is one of them."""

import pytest
import torch
from alignment_models import batch, direction_of, losses_of, patches
from torch.nn.functional import one_hot

from homing.rates import AlignmentError
from homing.rates.head_alignment import head_alignments
from homing.rates.references import double_backward, finite_difference, forward_mode, per_sample_loop

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("reference", "tolerance"), [(forward_mode, 1e-10), (double_backward, 1e-10), (finite_difference, 1e-6)]
)
def test_references_agree_with_the_loop(reference, tolerance):
    model, (images, labels) = patches(), batch()
    model.norm.bias.data += 3.0  # away from the kinks of ReLU, where a finite difference has no meaning
    direction = direction_of(model)
    expected = per_sample_loop(model, losses_of, images, labels, direction)
    found = reference(model, losses_of, images, labels, direction)
    assert not found.requires_grad
    assert (found - expected).norm() <= tolerance * expected.norm()


def test_error_of_the_finite_difference_falls_with_the_square_of_the_step():
    model, (images, labels) = patches(), batch()
    model.norm.bias.data += 3.0
    arguments = (model, losses_of, images, labels, direction_of(model))
    expected = per_sample_loop(*arguments)
    errors = [(finite_difference(*arguments, step=step) - expected).norm() for step in (4e-3, 2e-3, 1e-3)]
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


@pytest.mark.parametrize("soft", [False, True])
def test_closed_form_of_the_head(soft):
    torch.manual_seed(0)
    head = torch.nn.Linear(7, 4).double()
    features, labels = torch.randn(5, 7, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    targets = 0.9 * one_hot(labels, 4).double() + 0.025 if soft else labels
    direction = {name: torch.randn_like(p) for name, p in head.named_parameters()}
    found = head_alignments(features, head(features), targets, direction["weight"], direction["bias"])
    assert torch.allclose(found, per_sample_loop(head, losses_of, features, targets, direction), rtol=1e-12)


def test_closed_form_without_bias_and_with_shapes_that_do_not_fit():
    features, logits = torch.randn(5, 7), torch.randn(5, 4)
    labels = torch.zeros(5, dtype=torch.int64)
    assert head_alignments(features, logits, labels, torch.randn(4, 7)).shape == (5,)
    with pytest.raises(AlignmentError, match=r"do not fit a head direction of shape \(4, 6\)"):
        head_alignments(features, logits, labels, torch.randn(4, 6))
