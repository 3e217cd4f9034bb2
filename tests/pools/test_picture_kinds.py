"""What a file's numbers mean: 16 bits, floats, colour profiles, JPEGs at a scale; one decoding for all of it."""

from __future__ import annotations

import base64
import functools
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from drawn_pools import draw_picture, encoded
from homing.errors import DataError
from homing.outputs.report.pictures import thumbnail
from homing.pools.decoding import ALLOWED_FORMATS, SUFFIXES, decode, is_nearly_constant, open_rgb
from long_runs import LONG


@functools.cache
def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth noise over coarse and fine cells."""
    generator = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128, np.float32)
    for cell, share in ((200, 0.7), (20, 0.4), (4, 0.15)):
        coarse = generator.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += share * (np.asarray(smooth, np.float32) - 128)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def ramp(dtype: str, top: float) -> np.ndarray:
    return (np.linspace(0, 1, 64 * 64).reshape(64, 64) * top).astype(dtype)


GREYS = {
    "16 bits, PNG": encoded(Image.fromarray(ramp("u2", 65_535))),
    "16 bits, TIFF": encoded(Image.fromarray(ramp("u2", 65_535)), "TIFF"),
    "16 bits, big-endian": encoded(Image.frombytes("I;16B", (64, 64), ramp(">u2", 65_535).tobytes()), "TIFF"),
    "16 bits in 32": encoded(Image.fromarray(ramp("i4", 65_535)), "TIFF"),
    "floats to 1": encoded(Image.fromarray(ramp("f4", 1)), "TIFF"),
    "floats to 255": encoded(Image.fromarray(ramp("f4", 255)), "TIFF"),
    "floats to 65535": encoded(Image.fromarray(ramp("f4", 65_535)), "TIFF"),
}


@pytest.mark.parametrize("data", GREYS.values(), ids=GREYS)
def test_greys_of_any_type_fill_the_range_in_training_and_in_the_report(data):
    canvas = decode(data, 64)
    np.testing.assert_allclose(canvas[..., 0], ramp("f4", 255), atol=1)
    assert not is_nearly_constant(canvas)
    address = thumbnail(data)
    assert address is not None
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("L"))
    assert abs(shown.mean() - canvas.mean()) < 3


@pytest.mark.parametrize("top", [255, 4_095])
def test_integers_that_do_not_fill_their_type_are_told(top):
    assert is_nearly_constant(decode(encoded(Image.fromarray(ramp("u2", top))), 64))
    assert is_nearly_constant(decode(encoded(Image.fromarray(ramp("i4", top)), "TIFF"), 64))
    assert is_nearly_constant(decode(encoded(Image.new("RGB", (9, 9), "lime")), 64))
    assert not is_nearly_constant(decode(encoded(draw_picture(0)), 64))


def test_floats_that_are_no_numbers_are_black_and_harm_nothing():
    values = ramp("f4", 1)
    values[:32] = np.nan
    assert decode(encoded(Image.fromarray(values), "TIFF"), 64)[:30].max() == 0


@pytest.mark.parametrize("size", [(1006, 755), (667, 500), (401, 1003)])
@pytest.mark.parametrize("canvas", [64, 73])
def test_a_jpeg_at_a_scale_shows_what_it_shows_in_full(size, canvas):
    """Geometry is exact: what averaging in blocks leaves is below 0.9 on the mean; stretching made it 15."""
    data = encoded(photograph(*size), "JPEG", quality=90)
    full = decode(encoded(open_rgb(data, 64_000_000)), canvas)
    off = np.abs(decode(data, canvas).astype(int) - full)
    assert off.mean() < 0.9
    assert off.max() <= 9


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_of_a_scaled_jpeg_keeps_its_edges(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(1006, 755), "JPEG", quality=90, exif=exif)
    off = np.abs(decode(data, 45).astype(int) - decode(encoded(open_rgb(data, 64_000_000)), 45))
    assert off.mean() < 0.9
    assert off.max() <= 9


def adobe_rgb() -> bytes:
    """Adobe RGB (1998) as far as a matrix profile goes: wide primaries, gamma 2.2; written by hand."""
    primaries = {"r": (0.60974, 0.31111, 0.01947), "g": (0.20528, 0.62567, 0.06087), "b": (0.14919, 0.06322, 0.74457)}

    def fixed(value: float) -> bytes:
        return round(value * 65_536).to_bytes(4, "big", signed=True)

    tags = {b"desc": b"desc\0\0\0\0\0\0\0\x05wide\0" + bytes(78)}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1, 0.8249)))
    for name, value in primaries.items():
        tags[name.encode() + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, value))
        tags[name.encode() + b"TRC"] = b"curv\0\0\0\0\0\0\0\x01" + round(2.2 * 256).to_bytes(2, "big") + bytes(2)
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + (offset + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    header = bytearray(128)
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    header[68:80] = b"".join(map(fixed, (0.9642, 1, 0.8249)))
    header[0:4] = (offset + len(body)).to_bytes(4, "big")
    return bytes(header) + len(tags).to_bytes(4, "big") + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_embedded_profile_is_converted_to_srgb(mode):
    wide = ImageCms.ImageCmsProfile(io.BytesIO(adobe_rgb()))
    shown = Image.new("RGB", (32, 32), (180, 60, 40))
    stored = ImageCms.profileToProfile(shown, ImageCms.createProfile("sRGB"), wide, 1)
    assert stored.getpixel((0, 0))[0] < 165  # the numbers differ from what is meant
    data = encoded(stored.quantize(4) if mode == "P" else stored.convert(mode), icc_profile=adobe_rgb())
    np.testing.assert_allclose(decode(data, 16)[8, 8], (180, 60, 40), atol=3)
    np.testing.assert_allclose(np.asarray(open_rgb(data, 64_000_000))[0, 0], (180, 60, 40), atol=3)


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"no profile",
        bytes(500),
        adobe_rgb()[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
)
def test_profiles_that_are_broken_or_srgb_change_nothing(profile):
    image = draw_picture(0, size=40)
    np.testing.assert_array_equal(decode(encoded(image, icc_profile=profile), 32), decode(encoded(image), 32))


@pytest.mark.parametrize("mode", ["L", "CMYK", "LA", "I;16"])
def test_a_profile_of_other_colours_than_the_picture_is_no_reason_to_fail(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert decode(encoded(Image.new(mode, (8, 8)), kind, icc_profile=adobe_rgb()), 8).shape == (8, 8, 3)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n%%EOF\n"
FOREIGN = {
    "postscript": POSTSCRIPT,
    "dos postscript": b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + len(POSTSCRIPT).to_bytes(4, "little")
    + bytes(18) + POSTSCRIPT,
    "pdf": b"%PDF-1.4\n",
    "metafile": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "icon": encoded(Image.new("RGB", (16, 16)), "ICO"),
    "tga": encoded(Image.new("RGB", (16, 16)), "TGA"),
}  # fmt: skip


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_no_other_decoder_sees_a_picture_whatever_it_begins_with(data):
    with pytest.raises(DataError, match="of no image format"):
        decode(data, 16)
    assert thumbnail(data) is None


def test_formats_and_suffixes_are_those_that_this_pillow_decodes():
    assert {"JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM"} <= set(ALLOWED_FORMATS)
    assert not {"EPS", "PDF", "WMF", "IM", "FPX", "MIC", "GBR"} & set(ALLOWED_FORMATS)
    assert {".jpg", ".png", ".tif"} <= SUFFIXES
    for kind, suffix in (("WEBP", ".webp"), ("AVIF", ".avif"), ("JPEG2000", ".jp2")):
        if kind in ALLOWED_FORMATS:
            assert suffix in SUFFIXES
            np.testing.assert_allclose(
                decode(encoded(Image.new("RGB", (9, 9), "red"), kind), 8)[4, 4], (255, 0, 0), atol=6
            )


WORST = {  # few bytes, the most pixels that are allowed
    "WEBP": ("RGBA", (5_656, 5_656), {"lossless": True}),
    "AVIF": ("RGB", (5_656, 5_656), {"speed": 10, "max_threads": 1}),
    "JPEG2000": ("RGB", (4_618, 4_618), {}),
    "PNG": ("RGBA", (8_000, 8_000), {}),
    "GIF": ("P", (8_000, 8_000), {}),
    "TIFF": ("F", (8_000, 8_000), {"compression": "tiff_lzw"}),
    "JPEG": ("RGB", (8_000, 8_000), {"progressive": True}),
}


@pytest.mark.parametrize("kind", sorted(WORST) if LONG else ["WEBP"])
def test_the_largest_picture_of_each_format_takes_less_than_800_megabytes(kind, tmp_path: Path):
    mode, size, options = WORST[kind]
    if kind not in ALLOWED_FORMATS:
        pytest.skip(f"this Pillow does not read {kind}")
    Image.new(mode, size).save(tmp_path / "large", kind, **options)
    code = (
        "from pathlib import Path\nfrom homing.memory import peak_rss_mb\nfrom homing.pools.decoding import decode\n"
        "data = Path('large').read_bytes()\ndecode(data[:100] and b'P5 8 8 255 ' + bytes(64), 8)\n"
        "before = peak_rss_mb()\ndecode(data, 256)\nprint(peak_rss_mb() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    print(kind, size, f"{float(done.stdout):.0f} MB")
    assert float(done.stdout) < 800
