import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from drawn_pools import draw_picture
from homing.errors import DataError
from homing.pools.decoding import decode


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def quarters() -> Image.Image:
    """Red, green / blue, white: every turn and mirror looks different."""
    image = Image.new("RGB", (64, 64), "white")
    image.paste("red", (0, 0, 32, 32))
    image.paste("lime", (32, 0, 64, 32))
    image.paste("blue", (0, 32, 32, 64))
    return image


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no such pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "an empty file"),
        (b"this is no picture", "of no image format"),
        (encoded(draw_picture(0, size=64), "JPEG")[:1_000], "truncated"),
        (encoded(draw_picture(0, size=64))[:800], "not a readable image"),
        (encoded(draw_picture(0))[:20], "not a readable image"),
        (png_of_size(20_000, 20_000), "far more pixels"),
        (png_of_size(8_001, 8_000), "8001 x 8000 pixels, more than data.max_pixels (64,000,000)"),
        (png_of_size(0, 10), "not a readable image"),
    ],
)
def test_what_is_no_usable_picture_is_refused_with_its_reason(data, told):
    with pytest.raises(DataError) as caught:
        decode(data, 32)
    assert told in str(caught.value)
    assert "0x" not in str(caught.value)  # no address in memory: the message is the same in every run


def test_the_pixel_limit_is_the_recipes():
    data = encoded(Image.new("RGB", (40, 30)))
    assert decode(data, 16, max_pixels=1_200).shape == (16, 16, 3)
    with pytest.raises(DataError, match="40 x 30 pixels, more than"):
        decode(data, 16, max_pixels=1_199)


def test_a_header_bomb_costs_neither_memory_nor_time(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of_size(20_000, 20_000))
    Image.new("L", (1, 60_000)).save(tmp_path / "strip.png")
    code = (
        "import time\nfrom pathlib import Path\nfrom homing.memory import peak_rss_mb\n"
        "from homing.pools.decoding import decode\n"
        "started = time.process_time()\n"
        "try:\n    decode(Path('bomb.png').read_bytes(), 256)\nexcept ValueError as error:\n    print(error)\n"
        "print(decode(Path('strip.png').read_bytes(), 1024).shape)\n"
        "assert time.process_time() - started < 1\n"
        "print(round(peak_rss_mb()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    told, shape, megabytes = done.stdout.splitlines()
    assert "decompression bomb" in told
    assert shape == "(1024, 1024, 3)"
    assert int(megabytes) < 1_024


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_stand_upright_whatever_their_exif_orientation(orientation, kind):
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = quarters() if stored is None else quarters().transpose(stored)
    canvas = decode(encoded(image, kind, exif=exif), 32)
    np.testing.assert_allclose(canvas, decode(encoded(quarters()), 32), atol=60)  # JPEG rings at the edges
    corners = [canvas[4, 4], canvas[4, -4], canvas[-4, 4], canvas[-4, -4]]
    np.testing.assert_allclose(corners, [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], atol=6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own word on the file that this test is about
def test_damaged_exif_leaves_the_picture_as_stored():
    data = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")
    np.testing.assert_array_equal(decode(data, 32), decode(encoded(quarters(), "JPEG"), 32))


def test_cmyk_is_shown_in_its_colours():
    data = encoded(quarters().convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(decode(data, 64)[8, 8], (255, 0, 0), atol=8)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_16_bit_greys_keep_their_range(mode):
    ramp = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16 if mode == "I;16" else np.int32)
    canvas = decode(encoded(Image.fromarray(ramp), "PNG" if mode == "I;16" else "TIFF"), 64)
    assert canvas[0, 0].tolist() == [0, 0, 0]
    assert canvas[-1, -1].tolist() == [255, 255, 255]
    np.testing.assert_allclose(canvas[32, 0], 128, atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "1"])
def test_transparent_parts_are_white(mode):
    if mode in ("P", "RGB", "1"):
        data = encoded(Image.new(mode, (8, 8), 0), transparency=(0, 0, 0) if mode == "RGB" else 0)
    else:
        data = encoded(Image.new(mode, (8, 8)))
    assert decode(data, 8).min() == 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "F", "RGBa", "La"])
def test_every_mode_of_a_tiff_gives_a_canvas(mode):
    image = Image.new("RGBA", (10, 12), (200, 200, 200, 255))
    image = (
        image.convert("RGB").convert(mode)
        if mode not in ("RGBa", "La")
        else image.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)
    )
    out = io.BytesIO()
    try:
        image.save(out, "TIFF")
    except OSError:  # a mode that no file can have
        return
    assert decode(out.getvalue(), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "MPO"])
def test_of_several_frames_the_first_is_shown(kind):
    red, blue = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    data = encoded(red, kind, save_all=True, append_images=[blue])
    np.testing.assert_allclose(decode(data, 20).mean((0, 1)), (255, 0, 0), atol=4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (500, 3), (3, 500), (33, 32), (32, 1_000)])
def test_any_shape_gives_a_square(size):
    assert decode(encoded(Image.new("RGB", size, "red")), 32).shape == (32, 32, 3)
    assert decode(encoded(Image.new("RGB", size, "red")), 32)[16, 16].tolist() == [255, 0, 0]


def test_a_strip_shows_its_middle():
    image = Image.new("RGB", (2_000, 10), "blue")
    image.paste("red", (990, 0, 1_010, 10))
    np.testing.assert_array_equal(decode(encoded(image), 16), np.broadcast_to([255, 0, 0], (16, 16, 3)))


@pytest.mark.parametrize("size", [(100, 100), (97, 61), (61, 97), (160, 37), (224, 225)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_centre_of_a_canvas_is_timms_evaluation_input(size, interpolation):
    from timm.data import create_transform

    generator = np.random.default_rng(1)
    image = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    transform = create_transform((3, 56, 56), crop_pct=0.875, interpolation=interpolation, normalize=False)
    theirs = np.asarray(transform(image)).transpose(1, 2, 0)  # uint8 [56, 56, 3]
    ours = decode(encoded(image), 64, interpolation)[4:-4, 4:-4]
    np.testing.assert_array_equal(ours, theirs)  # exact: the same resize, the same crop


def test_a_large_jpeg_is_close_to_timms_evaluation_input():
    from timm.data import create_transform

    image = draw_picture(3, size=640)
    data = encoded(image, "JPEG", quality=95)
    transform = create_transform((3, 56, 56), crop_pct=0.875, interpolation="bicubic", normalize=False)
    theirs = np.asarray(transform(Image.open(io.BytesIO(data)).convert("RGB"))).transpose(1, 2, 0)
    difference = np.abs(decode(data, 64)[4:-4, 4:-4].astype(int) - theirs)
    assert difference.mean() < 1.5  # of 255: decoded at an eighth (draft), then resized a little
    assert difference.max() < 40


def test_decoding_leaves_warning_filters_alone():
    import warnings

    before = list(warnings.filters)
    decode(encoded(quarters()), 32)
    assert list(warnings.filters) == before
