"""What is rounded to sixteen bits, and how."""

import pytest
import torch

from homing.rates.alignment.sixteen_bits import SixteenBits


def rows(*sizes):
    """Rows of very different sizes, one of them 0."""
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randn(*sizes, generator=generator)
    scales = torch.logspace(-30, 30, sizes[0]).view(-1, *(1,) * (len(sizes) - 1))
    scales[sizes[0] // 2] = 0
    return tensor * scales


@pytest.mark.parametrize("shape", [(64, 256), (128, 16, 3, 3)])
def test_each_element_is_off_by_little_beside_its_rows_largest(shape):
    tensor = rows(*shape)
    found = SixteenBits.of(tensor).whole()
    off, largest = (found - tensor).flatten(1).abs().amax(1), tensor.flatten(1).abs().amax(1)
    assert bool((off <= 2**-15 * largest).all())


def test_what_was_rounded_is_rounded_to_itself():
    once = SixteenBits.of(rows(64, 256))
    again = SixteenBits.of(once.whole())
    assert torch.equal(once.codes, again.codes)
    assert torch.equal(once.scale, again.scale)


def test_the_memory_format_stays():
    tensor = rows(64, 32, 3, 3).contiguous(memory_format=torch.channels_last)
    kept = SixteenBits.of(tensor)
    assert kept.whole().stride() == kept.codes.stride() == tensor.stride()


@pytest.mark.parametrize("value", [1e-44, 3.4e38, 0.0])
def test_the_smallest_and_the_largest_numbers_stay_finite(value):
    found = SixteenBits.of(torch.full((4, 4096), value)).whole()
    assert bool((found - value).abs().max() <= 2**-15 * value + 2**-126)


@pytest.mark.parametrize(
    ("tensor", "pays"),
    [
        (torch.empty(64, 256), True),
        (torch.empty(64, 255), False),
        (torch.empty(4096, 15), False),
        (torch.empty(1 << 20), False),
        (torch.empty(64, 256, dtype=torch.float64), False),
        (torch.empty(64, 256, dtype=torch.bfloat16), False),
    ],
)
def test_small_tensors_and_other_types_stay_as_they_are(tensor, pays):
    assert SixteenBits.pays(tensor) == pays
