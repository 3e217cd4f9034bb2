"""Every bad kind of image is told by name with its reason, costs little, and never becomes a neighbour's pixels."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from drawn_pools import draw_picture, draw_pool, encoded
from homing.errors import DataError
from homing.models.backbone import Preprocessing
from homing.models.inputs import ImageInputs, Visit
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.pools.tables import open_table
from homing.recipe.data import PoolSpec
from processes import LONG_ENOUGH, ended, start

PICTURE = draw_picture(7, 1, size=64)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def bmp_that_lies() -> bytes:
    data = bytearray(encoded(PICTURE, "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    return bytes(data)


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"this is no picture",
    "page.png": b"<!DOCTYPE html><title>404</title>",
    "archive.png": b"PK\x03\x04" + bytes(60),
    "truncated.jpg": encoded(PICTURE, "JPEG")[:900],
    "headless.jpg": encoded(PICTURE, "JPEG")[200:],
    "truncated.png": encoded(PICTURE, "PNG")[:800],
    "garbled.png": png(64, 64, b"\x78\x9c" + b"\xff" * 400),
    "no-pixels.png": png(64, 64, zlib.compress(b"\0" * 100)),
    "zero-wide.png": png(0, 10, zlib.compress(b"")),
    "header-bomb.png": png(20_000, 20_000, zlib.compress(b"\0" * 1_000)),
    "lying.bmp": bmp_that_lies(),
    "truncated.webp": encoded(PICTURE, "WEBP")[:300],
    "truncated.gif": encoded(PICTURE, "GIF")[:200],
    "truncated.tif": encoded(PICTURE, "TIFF")[:60],
    "wide.ppm": b"P6 100000 100000 255\n" + bytes(100),
    "nowhere.png": None,  # a link that leads nowhere
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = draw_pool(tmp_path_factory.mktemp("pool"), {"good": len(BAD) + 1})
    for number, (name, data) in enumerate(BAD.items()):
        path = root / "good" / f"{number:03d}-{name}"  # each between two good ones
        if data is None:
            path.symlink_to(root / "gone")
        else:
            path.write_bytes(data)
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_named_with_a_reason_and_leave_their_neighbours_alone(root, workers):
    assert len(BAD) >= 12
    pool = read_pool(PoolSpec(path=str(root)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=16, workers=workers)
    alone = {
        name: Images(pool.store, pool.rows[[row]], [name], canvas=16).fetch(np.array([0]))[0]
        for row, name in enumerate(pool.ids)
        if "-" not in name
    }
    bad = images.find_bad()
    assert [item.name for item in bad] == sorted(f"good/{n:03d}-{name}" for n, name in enumerate(BAD))
    assert all(item.reason and "\n" not in item.reason and "0x" not in item.reason for item in bad)
    for item in bad:
        with pytest.raises(DataError, match=item.name):
            images.fetch(np.array([item.row]))
    images.select(np.setdiff1d(np.arange(len(images)), [item.row for item in bad]))
    for row, name in enumerate(images.names):
        np.testing.assert_array_equal(images.fetch(np.array([row]))[0], alone[name])
    images.close()


def _measure(root, out) -> None:
    from homing.memory import peak_rss_mb

    before = peak_rss_mb()
    pool = read_pool(PoolSpec(path=str(root)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=224, max_pixels=178_956_970)
    images.find_bad()
    out.write_text(f"{before} {peak_rss_mb()}")


def test_bombs_cost_less_than_a_gibibyte(root, tmp_path):
    """A PNG of 20,000 x 20,000 and its like, at the widest limit that a recipe may set."""
    process = start(_measure, root, tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    before, peak = map(float, (tmp_path / "out").read_text().split())
    print(f"peak {peak:.0f} MB, {peak - before:.0f} MB above the imports")
    assert peak < 1_073


def test_the_limit_of_pixels_holds_before_any_is_read(root):
    pool = read_pool(PoolSpec(path=str(root)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=16, max_pixels=300)
    assert len(images.find_bad()) == len(pool)  # 24 x 24 pixels are too many, and so are those of the bombs


def test_exif_orientations_stand_alike_in_training_and_evaluation(tmp_path):
    turns = [None, 0, 3, 1, 5, 2, 6, 4]  # Pillow's transpositions that store orientations 1 to 8
    picture = draw_picture(3, size=48)
    (tmp_path / "pool" / "x").mkdir(parents=True)
    for orientation, turn in enumerate(turns, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = picture if turn is None else picture.transpose(Image.Transpose(turn))
        stored.save(tmp_path / "pool" / "x" / f"{orientation}.png", exif=exif)
    pool = read_pool(PoolSpec(path=str(tmp_path / "pool")))
    images = Images(pool.store, pool.rows, pool.ids, canvas=32)
    inputs = ImageInputs(
        images, Preprocessing(28, 32, "bicubic", (0, 0, 0), (1, 1, 1)), None, seed=0, device=torch.device("cpu")
    )
    rows = np.arange(8)
    (evaluated,) = inputs.evaluating([rows])
    (trained,) = inputs.training([Visit(0, rows, np.zeros_like(rows))])
    assert torch.equal(trained, evaluated)
    # equal but for the direction in which a resize sums up
    torch.testing.assert_close(evaluated, evaluated[:1].expand(8, -1, -1, -1), rtol=0, atol=1.01 / 255)
    assert not torch.allclose(evaluated[0], evaluated[0].flip(-1), atol=0.1)


def test_links_are_followed_and_what_they_lead_to_has_to_be_a_picture(tmp_path):
    """Pools are often made of links into a larger one; whoever can place a link can place a copy."""
    root = draw_pool(tmp_path / "pool", {"cat": 2})
    draw_picture(5).save(tmp_path / "elsewhere.png")
    (tmp_path / "secret").write_text("root:x:0:0")
    (root / "cat" / "a.png").symlink_to(tmp_path / "elsewhere.png")
    (root / "cat" / "b.png").symlink_to(tmp_path / "secret")
    pool = read_pool(PoolSpec(path=str(root)))
    bad = Images(pool.store, pool.rows, pool.ids, canvas=16).find_bad()
    assert [(item.name, item.reason) for item in bad] == [("cat/b.png", "not a readable image: of no image format")]


def test_a_table_names_no_file_outside_of_its_folder(tmp_path):
    draw_picture(5).save(tmp_path / "outside.png")
    (tmp_path / "pool").mkdir()
    draw_picture(6).save(tmp_path / "pool" / "inside.png")
    paths = [str(tmp_path / "outside.png"), "../outside.png", "inside.png", str(tmp_path / "pool" / "inside.png")]
    rows = {"image": [{"bytes": None, "path": path} for path in paths], "label": list("abab")}
    pq.write_table(pa.table(rows, schema=_SCHEMA), tmp_path / "pool" / "pool.parquet")
    store = open_table(tmp_path / "pool" / "pool.parquet").images()
    for row in (0, 1):
        with pytest.raises(OSError, match="a file outside the pool"):
            store.read(row)
    inside = (tmp_path / "pool" / "inside.png").read_bytes()
    assert [store.read(row) for row in (2, 3)] == [inside, inside]


_SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.string())])
