"""Pictures that were saved anew are found by their looks; flipped ones and others are not."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

from homing.pools.decoding import decode
from homing.pools.looks import CANVAS, equal_pairs, looks_of, near_pairs, same_picture
from homing.quickstart import handwritten

SAVED = {
    "JPEG of low quality": (1.0, {"format": "JPEG", "quality": 40}),
    "half as large": (0.5, {"format": "PNG"}),
    "larger": (1.7, {"format": "JPEG", "quality": 85}),
    "WebP": (0.75, {"format": "WEBP", "quality": 70}),
}


def scene(seed: int, side: int = 120) -> Image.Image:
    """A picture with the spectrum of a photograph: clouds of all sizes, and a few edges."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3))
    for size in (4, 8, 16, 32):
        part = Image.fromarray(generator.integers(0, 255, (size, size, 3), dtype=np.uint8))
        pixels += np.asarray(part.resize((side, side), Image.Resampling.BICUBIC), float) * (8 / size)
    pixels = (255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)
    pixels[side // 4 : side // 2, side // 3 :] //= 2
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6))


def saved(image: Image.Image, scale: float = 1.0, **how) -> bytes:
    file = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(file, **(how or {"format": "PNG"}))
    return file.getvalue()


def canvases(pictures, side: int = CANVAS):
    return np.stack([decode(data, side) for data in pictures])


@pytest.mark.parametrize("side", [32, 73, 256])
@pytest.mark.parametrize("how", SAVED)
def test_a_picture_that_was_saved_anew_looks_nearly_the_same(how, side):
    scale, options = SAVED[how]
    scenes = [scene(seed) for seed in range(8)]
    ours, theirs = (
        canvases([saved(one, *way[:1], **way[1]) for one in scenes], side) for way in ((1.0, {}), (scale, options))
    )
    first, second = near_pairs(looks_of(ours), looks_of(theirs))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(row, row) for row in range(8)]


def test_pixels_of_another_saving_are_the_same_picture():
    small = canvases([saved(scene(1)), saved(scene(1), 0.5, format="JPEG", quality=50), saved(scene(2))])
    assert same_picture(small[0], small[1])
    assert not same_picture(small[0], small[2])


def test_a_flipped_turned_or_cut_picture_is_another_one():
    one = scene(3)
    others = [one.transpose(how) for how in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90)]
    others.append(one.crop((0, 0, 80, 80)))
    looks = looks_of(canvases([saved(image) for image in (one, *others)]))
    assert near_pairs(looks)[0].tolist() == []


def test_pictures_of_one_colour_look_like_nothing():
    even = looks_of(np.full((2, 40, 40, 3), 200, np.uint8))
    assert even.tolist() == [0, 0]
    assert len(near_pairs(even)[0]) == len(equal_pairs(even)[0]) == 0


def test_canvases_that_are_too_small_are_not_looked_at():
    assert looks_of(canvases([saved(scene(1))], 20)).tolist() == [0]
    assert looks_of(np.empty((0, 64, 64, 3), np.uint8)).tolist() == []


def test_pairs_are_those_of_a_plain_loop_nearest_first():
    generator = np.random.default_rng(0)
    base = generator.integers(1, 2**63, 40, dtype=np.uint64)
    looks = np.concatenate([base, base ^ np.uint64(5), base[:3] ^ np.uint64(0b11111)])
    bits = [[bin(int(a) ^ int(b)).count("1") for b in looks] for a in looks]
    expected = sorted(
        (bits[a][b], a, b) for a in range(len(looks)) for b in range(a + 1, len(looks)) if bits[a][b] <= 4
    )
    first, second = near_pairs(looks)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(a, b) for _, a, b in expected]
    assert len(near_pairs(looks, looks[:0])[0]) == 0


@pytest.mark.parametrize("at_most", [1, 3])
def test_of_each_row_no_more_than_the_nearest_pairs_are_told(at_most):
    generator = np.random.default_rng(0)
    bits = np.array([[0b1], [0b10], [0b111], [0]], np.uint64)
    looks = (generator.integers(1, 2**63, 30, dtype=np.uint64) ^ bits).ravel()
    for theirs in (None, looks[::-1].copy()):
        taken: dict[int, int] = {}
        expected = []
        for first, second in zip(*(rows.tolist() for rows in near_pairs(looks, theirs)), strict=True):
            taken[first] = taken.get(first, 0) + 1
            if taken[first] <= at_most:
                expected.append((first, second))
        told = near_pairs(looks, theirs, at_most)
        assert list(zip(*(rows.tolist() for rows in told), strict=True)) == expected


def test_thousands_that_look_alike_have_no_millions_of_pairs():
    looks = np.full(2_500, 7, np.uint64)
    assert len(near_pairs(looks, at_most=5)[0]) == 5 * 2_500 - 15
    assert len(near_pairs(looks, looks, at_most=1)[0]) == 2_500


def test_equal_looks_are_told_once_a_copy():
    firsts, again = equal_pairs(np.array([7, 0, 9, 7, 7, 0], np.uint64))
    assert (firsts.tolist(), again.tolist()) == ([0, 0], [3, 4])


def test_a_large_source_is_searched_in_little_time():
    generator = np.random.default_rng(1)
    source, target = (generator.integers(1, 2**63, count, dtype=np.uint64) for count in (100_000, 500))
    begun = time.process_time()
    near_pairs(source, target)
    assert time.process_time() - begun < 10


def test_scans_of_few_pixels_that_look_alike_are_no_savings_of_one_picture():
    """The quickstart's: 8 x 8 pixels, kept as 64 x 64. Each says little more than its looks do."""
    ink, _ = handwritten()
    stored = [Image.fromarray(np.round(255 * (1 - one)).astype(np.uint8)).resize((64, 64)) for one in ink]
    kept = canvases([saved(one) for one in stored])
    pairs = list(zip(*near_pairs(looks_of(kept)), strict=True))
    assert len(pairs) > 10
    assert [pair for pair in pairs if same_picture(*kept[list(pair)])] == []
    again = canvases([saved(one, format="JPEG", quality=60) for one in stored[:100]])
    assert sum(map(same_picture, kept, again)) == 100
