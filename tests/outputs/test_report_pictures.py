"""Thumbnails: small pictures out of any bytes, or none."""

import base64
import io

import pytest
from PIL import Image

from homing.outputs.report.pictures import thumbnail
from report_run import drawn


@pytest.mark.parametrize("broken", [b"", b"not a picture", drawn("half")[:60]])
def test_bytes_that_are_no_picture_give_no_thumbnail(broken):
    assert thumbnail(broken) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_picture_gives_a_thumbnail_of_at_most_96_pixels(mode):
    out = io.BytesIO()
    Image.new(mode, (300, 40)).save(out, "TIFF" if mode in ("CMYK", "F") else "PNG")
    address = thumbnail(out.getvalue())
    assert address is not None
    assert Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).size == (96, 13)
