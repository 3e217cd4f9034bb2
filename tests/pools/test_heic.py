"""HEIC, as phones write it, is read where `pillow-heif` is installed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from drawn_pools import draw_picture, encoded
from homing.errors import DataError
from homing.outputs.report.pictures import thumbnail
from homing.pools.decoding import decode, format_of
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec

pytestmark = pytest.mark.heic


def heic(image: Image.Image, **options) -> bytes:
    return encoded(image, "HEIF", quality=95, **options)


def test_a_photo_is_read_in_its_colours_and_turned_once_at_most():
    """What stands in EXIF of a turn is done by the file's own format already."""
    photo, exif = draw_picture(0, size=128), Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    assert np.abs(decode(heic(photo), 64).astype(int) - decode(encoded(photo), 64)).mean() < 4
    turned = heic(photo, exif=exif)
    with Image.open(io.BytesIO(turned), formats=["HEIF"]) as image:
        np.testing.assert_array_equal(decode(turned, 64), decode(encoded(image.convert("RGB")), 64))
    assert format_of(turned) == "HEIF"
    assert thumbnail(turned) is not None


def test_a_pool_lists_them_and_damaged_ones_are_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number, suffix in enumerate(("heic", "heif", "HEIC")):
            (tmp_path / name / f"{number}.{suffix}").write_bytes(heic(draw_picture(number, size=64)))
    pool = read_pool(PoolSpec(path=str(tmp_path)))
    assert len(pool) == 6
    data = pool.read(0)
    assert decode(data, 32).shape == (32, 32, 3)
    with pytest.raises(DataError, match="not a readable image"):
        decode(data[: len(data) // 2], 32)
