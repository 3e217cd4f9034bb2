"""Four ways to the alignments agree."""

import pytest
import torch
from alignment_models import batch, direction_of, losses_of, patches
from references import double_backward, finite_difference, forward_mode, per_sample_loop

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
