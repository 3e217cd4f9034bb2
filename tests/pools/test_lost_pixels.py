"""JPEGs of which a part was lost, as a broken copy leaves them: refused where it can be told, never a sound one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from drawn_pools import encoded
from homing.errors import DataError
from homing.pools.decoding import decode

KINDS = {
    "plain": {},
    "codes of its own": {"optimize": True},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "restart markers": {"restart_marker_rows": 4},
}


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[:600, :800]
    waves = 128 + 60 * np.sin(x / 30)[..., None] * np.array([1, 0.5, 0.2]) + 40 * np.cos(y / 17)[..., None]
    noise = np.random.default_rng(0).normal(0, 3, (600, 800, 3))
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, mode: str = "RGB", **options) -> bytes:
    return encoded(image.convert(mode), "JPEG", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_whose_second_half_is_gone_is_refused(picture, kind):
    data = jpeg(picture, **KINDS[kind])
    half = len(data) // 2
    for lost in (data[:half], data[:half] + bytes(len(data) - half), data[:half] + b"\xff" * (len(data) - half)):
        with pytest.raises(DataError, match="not a readable image: truncated: it ends before its pixels do"):
            decode(lost, 64)
    with pytest.raises(DataError, match="overwritten with ones"):
        decode(data[:half] + b"\xff" * 512 + data[half + 512 :], 64)


@pytest.mark.parametrize("kind", ["plain", "grey", "restart markers"])
def test_zeros_amid_codes_that_are_none_are_refused(picture, kind):
    data = jpeg(picture, **KINDS[kind])
    half = len(data) // 2
    with pytest.raises(DataError, match="overwritten with zeros"):
        decode(data[:half] + bytes(512) + data[half + 512 :], 64)


@pytest.mark.parametrize("kind", KINDS)
def test_sound_jpegs_of_any_content_are_read(picture, kind):
    """Large plain areas are runs of zeros where their codes are; what stands behind the end is none of the picture."""
    for image in (picture, Image.new("RGB", (800, 600), "white"), Image.new("RGB", (800, 600), "black")):
        data = jpeg(image, **KINDS[kind])
        for whole in (data, data + bytes(4_096), data + b"\xff" * 4_096):
            np.testing.assert_array_equal(decode(whole, 64), decode(data, 64))
    assert bytes(64) in jpeg(Image.new("RGB", (800, 600), "white"), optimize=True)


def test_the_second_picture_of_a_file_is_none_of_the_first(picture):
    data = encoded(picture, "MPO", save_all=True, append_images=[picture])
    np.testing.assert_array_equal(decode(data[: len(data) * 3 // 4], 64), decode(data, 64))
