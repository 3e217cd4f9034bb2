"""Thumbnails: small pictures out of any bytes, or none."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from drawn_pools import encoded
from homing.outputs.report.pictures import MAX_INLINE_BYTES, inline, thumbnail
from report_run import drawn


@pytest.mark.parametrize("broken", [b"", b"not a picture", drawn("half")[:60]])
def test_bytes_that_are_no_picture_give_no_thumbnail(broken):
    assert thumbnail(broken) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_picture_gives_a_whole_picture_of_at_most_384_pixels(mode):
    address = thumbnail(encoded(Image.new(mode, (600, 80)), "TIFF" if mode in ("CMYK", "F") else "PNG"))
    assert address is not None
    assert Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).size == (384, 51)


def noise(side: int) -> bytes:
    pixels = np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def size_of(address: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).size


def test_a_small_picture_is_never_enlarged():
    assert size_of(thumbnail(drawn("small", size=60))) == (60, 40)


def test_a_picture_is_as_large_as_its_share_of_the_page_allows():
    sides = []
    for max_bytes in (40_000, 12_000, 3_000):
        address = thumbnail(noise(400), max_bytes)
        assert len(address) <= max_bytes
        sides.append(max(size_of(address)))
    assert sides[0] > sides[1] > sides[2] >= 64


def test_few_pictures_are_shown_large_and_many_share_the_page():
    few = inline({"0": 1}, lambda ids: [noise(400)] * len(ids))
    many = inline({str(place): 4 + place % 4 for place in range(30)}, lambda ids: [noise(400)] * len(ids))
    assert len(many) == 30
    assert sum(len(address) * (4 + int(name) % 4) for name, address in many.items()) <= MAX_INLINE_BYTES
    assert max(size_of(few["0"])) > max(size_of(many["0"]))
