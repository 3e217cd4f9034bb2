import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from homing.pools.augmentation import CropFlipColor, crop

PLAIN = CropFlipColor(min_scale=1, max_aspect=1, horizontal_flip=0, color_jitter=0)
ROWS = np.array([5, 0, 12, 7, 7])
COPIES = np.array([0, 0, 1, 0, 1])


@pytest.fixture
def canvases():
    return torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def augmented(canvases, how=CropFlipColor(), seed=1, epoch=2, size=32, rows=ROWS, copies=COPIES):  # noqa: B008
    return crop(canvases, torch.from_numpy(how.draw(seed, epoch, rows, copies)), size)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 30)), min_size=1, max_size=20), st.integers(0, 99))
def test_a_sample_is_cropped_the_same_in_any_batch(samples, epoch):
    rows, copies = np.array(samples).T
    together = CropFlipColor().draw(3, epoch, rows, copies)
    apart = [CropFlipColor().draw(3, epoch, rows[n : n + 1], copies[n : n + 1])[0] for n in range(len(rows))]
    np.testing.assert_array_equal(together, apart)


def test_a_sample_looks_the_same_in_any_batch(canvases):
    together = augmented(canvases)
    for n in range(5):
        alone = augmented(canvases[n : n + 1], rows=ROWS[n : n + 1], copies=COPIES[n : n + 1])
        torch.testing.assert_close(alone[0], together[n], rtol=0, atol=1e-6)  # sums of a mean in another order
    backwards = augmented(canvases.flip(0), rows=ROWS[::-1].copy(), copies=COPIES[::-1].copy())
    torch.testing.assert_close(backwards.flip(0), together, rtol=0, atol=1e-6)


def test_the_look_depends_on_seed_epoch_row_and_copy_and_on_nothing_else():
    draw = CropFlipColor().draw
    base = draw(1, 2, ROWS, COPIES)
    np.random.seed(0)  # noqa: NPY002 - global generators shall have no say
    torch.manual_seed(0)
    np.testing.assert_array_equal(draw(1, 2, ROWS, COPIES), base)
    for key in ((0, 2, ROWS, COPIES), (1, 3, ROWS, COPIES), (1, 2, ROWS + 1, COPIES), (1, 2, ROWS, COPIES + 1)):
        assert (draw(*key)[:, 0] != base[:, 0]).all()


@pytest.mark.parametrize("size", [40, 32, 20])
def test_without_crop_flip_and_colour_it_is_a_plain_resize(canvases, size):
    expected = functional.interpolate(canvases, (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(augmented(canvases, PLAIN, size=size), expected, rtol=0, atol=1e-5)  # fp32 coordinates


def test_a_mirrored_picture_is_the_picture_mirrored(canvases):
    mirrored = augmented(canvases, CropFlipColor(1, 1, horizontal_flip=1, color_jitter=0), size=40)
    torch.testing.assert_close(mirrored, canvases.flip(3), rtol=0, atol=1e-5)


def test_crops_stay_inside_the_canvas_and_within_their_bounds():
    how = CropFlipColor(min_scale=0.3, max_aspect=1.5, horizontal_flip=0.25, color_jitter=0.2)
    rows = np.arange(20_000)
    width, height, x, y, brightness, contrast = how.draw(0, 0, rows, rows * 0).T
    flipped, width = width < 0, abs(width)
    assert (abs(x) + width <= 1 + 1e-6).all()
    assert (abs(y) + height <= 1 + 1e-6).all()
    area = width * height
    assert area.max() <= 1
    assert area.min() >= 0.3 / 1.5**0.5 - 1e-6  # a side that would leave the canvas is cut
    assert 0.24 < flipped.mean() < 0.26
    for factor in (brightness, contrast):
        assert 0.8 <= factor.min() < 0.81
        assert 1.19 < factor.max() <= 1.2


def test_values_stay_between_0_and_1(canvases):
    images = augmented(canvases, CropFlipColor(color_jitter=1))
    assert images.shape == (5, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1


def test_brightness_and_contrast_are_what_they_say():
    canvas = torch.full((1, 3, 8, 8), 0.4)
    canvas[..., :4] = 0.2
    brighter = crop(canvas, torch.tensor([[1.0, 1, 0, 0, 1.5, 1]]), 8)
    torch.testing.assert_close(brighter, canvas * 1.5, rtol=0, atol=1e-6)
    flatter = crop(canvas, torch.tensor([[1.0, 1, 0, 0, 1, 0.5]]), 8)
    torch.testing.assert_close(flatter, 0.3 + (canvas - 0.3) / 2, rtol=0, atol=1e-6)
