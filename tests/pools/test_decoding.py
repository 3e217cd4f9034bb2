import base64
import contextlib
import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from drawn_pools import draw_picture, encoded
from homing.errors import DataError
from homing.models.backbone import build_model
from homing.outputs.report.pictures import thumbnail
from homing.pools import decoding, pixels
from homing.pools.decoding import decode, is_nearly_constant, open_rgb


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
    try:
        data = encoded(image, "TIFF")
    except OSError:  # a mode that no file can have
        return
    assert decode(data, 16).shape == (16, 16, 3)


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


@pytest.mark.parametrize("size", [(1006, 755), (667, 500), (755, 1006), (1816, 1362), (640, 641), (4001, 431)])
@pytest.mark.parametrize("canvas", [64, 109])
def test_a_large_jpeg_is_neither_stretched_nor_shifted(size, canvas):
    """Its decoder halves it and rounds up: what is resized is the exact box."""
    data = encoded(draw_picture(3, size=500).resize(size), "JPEG", quality=95)
    in_full = encoded(Image.open(io.BytesIO(data)))
    difference = np.abs(decode(data, canvas).astype(int) - decode(in_full, canvas))
    assert difference.mean() < 0.8  # of 255; 15 where the box was not exact
    assert difference.max() < 16


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_large_jpeg_that_lies_on_its_side_is_not_shifted_either(orientation):
    data = encoded(draw_picture(3, size=1_006).crop((0, 0, 1_006, 755)), "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encoded(Image.open(io.BytesIO(data)), "JPEG", quality=95, exif=exif)
    in_full = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    difference = np.abs(decode(turned, 64).astype(int) - decode(encoded(in_full), 64))
    assert difference.mean() < 0.8
    assert open_rgb(turned, 10**7).size == in_full.size


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("size", [(1_003, 661), (661, 1_003)])
def test_a_picture_that_is_reduced_strip_by_strip_looks_as_in_full(monkeypatch, mode, size):
    ramp = np.add.outer(np.arange(size[1]) * 35, np.arange(size[0]) * 25)
    if mode == "I;16":
        image = Image.fromarray(ramp.clip(0, 65_535).astype(np.uint16))
    else:
        image = Image.fromarray((ramp // 190).clip(0, 255).astype(np.uint8)).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    in_full = decode(data, 56)
    monkeypatch.setattr(decoding, "_LARGE", 10_000)
    monkeypatch.setattr(pixels, "_STRIP", 9_000)
    difference = np.abs(decode(data, 56).astype(int) - in_full)
    assert difference.mean() < 0.6
    assert difference.max() < 6
    assert open_rgb(data, 10**8).size == size


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF", "TIFF of 32 bits"])
def test_16_bits_are_one_decoding_in_training_and_in_the_report(kind):
    ramp = np.linspace(0, 65_535, 64 * 64).reshape(64, 64)
    image = Image.fromarray(ramp.astype(np.int32 if "32" in kind else np.uint16))
    if kind == "big-endian TIFF":
        data = big_endian_tiff(ramp.astype(">u2"))
        assert Image.open(io.BytesIO(data)).mode == "I;16B"
    else:
        data = encoded(image, kind.split()[0])
    np.testing.assert_allclose(decode(data, 64)[..., 0], ramp / 257, atol=1.01)
    np.testing.assert_array_equal(np.asarray(open_rgb(data, 10**6)), decode(data, 64))
    shown = thumbnail(data)
    small = Image.open(io.BytesIO(base64.b64decode(shown.split(",")[1])))
    assert np.abs(np.asarray(small).mean() - ramp.mean() / 257) < 2


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """A grey TIFF of one strip; Pillow writes none in this order."""
    height, width = pixels.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 150), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, pixels.nbytes)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">I", value) if kind == 4 else struct.pack(">HH", value, 0))
        for tag, kind, value in tags
    )
    head = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", len(tags)) + entries + struct.pack(">I", 0)
    return head.ljust(150, b"\0") + pixels.tobytes()


@pytest.mark.parametrize(("largest", "shown"), [(1.0, 255), (255.0, 255), (65_535.0, 255), (0.5, 127), (128.0, 128)])
def test_floats_are_scaled_by_what_they_seem_to_be(largest, shown):
    ramp = np.linspace(0, largest, 64 * 64, dtype=np.float32).reshape(64, 64)
    ramp[0, :2] = (np.nan, -np.inf)
    canvas = decode(encoded(Image.fromarray(ramp), "TIFF"), 64)
    assert canvas[0, 0, 0] == 0
    assert abs(int(canvas[-1, -1, 0]) - shown) <= 1
    assert not is_nearly_constant(canvas)


@pytest.mark.parametrize(("bits", "kind"), [(8, "PNG"), (12, "PNG"), (8, "TIFF")])
def test_integers_that_do_not_fill_their_type_are_found_to_be_black(bits, kind):
    ramp = np.linspace(0, 2**bits - 1, 64 * 64).reshape(64, 64).astype(np.uint16 if kind == "PNG" else np.int32)
    assert is_nearly_constant(decode(encoded(Image.fromarray(ramp), kind), 64))


def test_pictures_of_one_colour_are_found_and_no_others():
    noise = np.random.default_rng(0).integers(0, 8, (64, 64, 3), dtype=np.uint8)
    assert is_nearly_constant(noise)
    assert is_nearly_constant(decode(encoded(Image.new("RGB", (64, 64), "red"), "JPEG"), 32))
    assert not is_nearly_constant(decode(encoded(quarters()), 32))
    assert not is_nearly_constant(decode(encoded(draw_picture(0)), 32))
    noise[3, 4] = 200  # a star in the night
    assert not is_nearly_constant(noise)


def profile_with(
    red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float], gamma: float
) -> bytes:
    """An ICC profile of a monitor: primaries as xy under D65, and a gamma."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    white, d50 = np.array([0.3127 / 0.329, 1, 0.3583 / 0.329]), np.array([0.9642, 1, 0.8249])
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford
    columns = adapt @ (columns * np.linalg.solve(columns, white))

    def numbers(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    parts = {name: b"XYZ \0\0\0\0" + numbers(*columns[:, i]) for i, name in enumerate(("rXYZ", "gXYZ", "bXYZ"))}
    parts |= {"wtpt": b"XYZ \0\0\0\0" + numbers(*d50), "rTRC": curve, "gTRC": curve, "bTRC": curve}
    parts["desc"] = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78 + 2)
    table, body, at = b"", b"", 128 + 4 + 12 * len(parts)
    for name, data in parts.items():
        table += name.encode() + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(28) + numbers(*d50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(parts)) + table + body


ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 2.2)
SRGB = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), 2.2)


def test_colours_of_an_embedded_profile_become_srgb():
    """Adobe RGB's (128, 128, 128) is grey still; its green of 200 is one that sRGB can only just show."""
    image = Image.new("RGB", (64, 64), (140, 200, 120))
    plain = decode(encoded(image), 32)[0, 0].astype(int)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        shown = decode(encoded(image, kind, icc_profile=profile_with(*ADOBE)), 32)[0, 0].astype(int)
        np.testing.assert_allclose(shown, (105, 201, 116), atol=6)
        assert np.abs(shown - plain).max() > 20
    grey = decode(encoded(Image.new("RGB", (64, 64), (128,) * 3), icc_profile=profile_with(*ADOBE)), 32)
    np.testing.assert_allclose(grey[0, 0], 128, atol=2)


def test_grey_and_cmyk_go_through_their_profiles_too():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cmyk = quarters().convert("CMYK")  # a profile of another kind of colour is of no use: the numbers stay
    np.testing.assert_array_equal(
        decode(encoded(cmyk, "TIFF", icc_profile=profile), 64), decode(encoded(cmyk, "TIFF"), 64)
    )
    dark = Image.new("L", (64, 64), 60)
    assert decode(encoded(dark, icc_profile=grey_profile(1.0)), 32)[0, 0, 0] > 120  # linear light


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of a grey scale."""
    d50 = b"".join(struct.pack(">i", round(value * 65_536)) for value in (0.9642, 1, 0.8249))
    parts = {
        b"wtpt": b"XYZ \0\0\0\0" + d50,
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0",
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(80),
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(parts)
    for name, data in parts.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + d50
    return header.ljust(128, b"\0") + struct.pack(">I", len(parts)) + table + body


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"no profile",
        profile_with(*ADOBE)[:300],
        bytes(5 * 2**20),  # longer than one of a press
    ],
    ids=["sRGB", "text", "cut", "huge"],
)
def test_srgb_by_any_name_and_broken_profiles_leave_the_numbers(profile):
    image = draw_picture(0, size=64)
    data = encoded(image, "JPEG", icc_profile=profile)
    np.testing.assert_array_equal(decode(data, 32), decode(encoded(image, "JPEG"), 32))


def jpeg_parts(part: bytes, count: int) -> bytes:
    data = encoded(draw_picture(0, size=64), "JPEG")
    return data[:2] + part * count + data[2:]


def png_parts(kind: bytes, body: bytes, count: int) -> bytes:
    data = encoded(draw_picture(0, size=64))
    part = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + part * count + data[33:]


def gif_parts(part: bytes, count: int) -> bytes:
    data = encoded(draw_picture(0, size=64).convert("L"), "GIF")
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:start] + part * count + data[start:]


OVERFULL = {
    "exif": lambda: jpeg_parts(b"\xff\xe1\0\x0cExif\0\0abcd", 1_000_000),
    "long exif": lambda: jpeg_parts(b"\xff\xe1\xff\xffExif\0\0" + b"MM\0*" + bytes(65_523), 200),
    "comments": lambda: jpeg_parts(b"\xff\xfe\0\x04ab", 1_000_000),
    "junk": lambda: jpeg_parts(b"\0", 50_000_000),
    "padding": lambda: jpeg_parts(b"\xff", 10_000_000),
    "png text": lambda: png_parts(b"tEXt", b"a\0b", 1_000_000),
    "png unknown": lambda: png_parts(b"abCd", b"", 1_000_000),
    "png crumbs": lambda: png_parts(b"IDAT", b"", 1_000_000),
    "gif comments": lambda: gif_parts(b"!\xfe\x02ab\0", 1_000_000),
    "gif comment": lambda: gif_parts(b"!\xfe" + b"\x02ab" * 1_000_000 + b"\0", 1),
    "ppm comment": lambda: b"P6 #" + b"a" * 50_000_000 + b"\n4 4 255\n" + bytes(48),
    "ppm comments": lambda: b"P6 " + b"#\n" * 5_000_000 + b"4 4 255\n" + bytes(48),
    "ppm spaces": lambda: b"P6" + b" " * 20_000_000 + b"4 4 255\n" + bytes(48),
}


@pytest.mark.parametrize("kind", OVERFULL)
def test_a_header_of_a_million_parts_is_read_or_refused_within_seconds(kind):
    data = OVERFULL[kind]()
    started = time.process_time()
    with contextlib.suppress(DataError):
        assert decode(data, 16).shape == (16, 16, 3)
    assert time.process_time() - started < 5


def test_a_picture_with_much_said_about_it_is_read_all_the_same():
    """A depth map, an extended XMP, a profile: some hundred segments of 64 kB."""
    assert decode(jpeg_parts(b"\xff\xe2\xff\xff" + bytes(65_533), 300), 16).shape == (16, 16, 3)
    assert decode(png_parts(b"tEXt", b"Comment\0" + b"a" * 500, 300), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("width", range(131, 139))
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_the_centre_crop_is_timms_for_any_parity_of_sides(width, backbone):
    from timm.data import create_transform

    preprocessing = build_model(backbone, "none", num_classes=2, image_size=96, seed=0)[1]
    generator = np.random.default_rng(width)
    image = Image.fromarray(generator.integers(0, 256, (120, width, 3), dtype=np.uint8))
    transform = create_transform(**preprocessing.data_config(), normalize=False)
    canvas = decode(encoded(image), preprocessing.canvas, preprocessing.interpolation)
    ours = preprocessing.center(torch.tensor(canvas).permute(2, 0, 1)[None])[0]
    np.testing.assert_array_equal(ours.numpy(), np.asarray(transform(image)))


def test_decoding_leaves_warning_filters_alone():
    import warnings

    before = list(warnings.filters)
    decode(encoded(quarters()), 32)
    assert list(warnings.filters) == before
