"""Small files that ask for gigabytes or minutes are refused before they are decoded; what cameras write is not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from drawn_pools import draw_picture, encoded
from homing.errors import DataError
from homing.pools.decoding import decode
from homing.pools.decoding_cost import bytes_to_decode
from processes import LONG_ENOUGH, ended, start

FINE = [0x00]  # precincts of one pixel


def jpeg2000(
    size: tuple[int, int], tile: tuple[int, int], *, channels: int = 1, blocks: int = 4, precincts=()
) -> bytes:
    """One tile of nothing, at no further level; sides of blocks are 2 ** (blocks + 2)."""
    sides = struct.pack(">HIIIIIIIIH", 0, *size, 0, 0, *tile, 0, 0, channels) + bytes([7, 1, 1]) * channels
    coding = bytes([bool(precincts), 0, 0, 1, 0, 0, blocks, blocks, 0, 1, *precincts])
    parts = [(0x51, sides), (0x52, coding), (0x5C, bytes([0x40, 0x48])), (0x90, struct.pack(">HIBB", 0, 18, 0, 1))]
    header = b"".join(struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data for kind, data in parts)
    return b"\xff\x4f" + header + b"\xff\x93" + bytes(4) + b"\xff\xd9"


def tiff(size: tuple[int, int], tile: tuple[int, int]) -> bytes:
    """Grey, of one tile that would be as large as it says."""
    pixels = zlib.compress(bytes(min(tile[0] * tile[1], 2**24)))
    tags = {256: size[0], 257: size[1], 258: 8, 259: 8, 262: 1, 277: 1, 322: tile[0], 323: tile[1]}
    tags |= {324: 8, 325: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def of_many_scans(side: int, count: int, **options: object) -> bytes:
    """A JPEG whose last scan comes so many times more, as bytes of its header alone."""
    data = encoded(Image.new("RGB", (side, side), "red"), "JPEG", **options)
    last = data.rindex(b"\xff\xda")
    header = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4], "big")]
    comment = b"\xff\xfe\x00\x04\xff\xd9"  # ends no picture
    return data[:-2] + comment + header * count + data[-2:]


def run_length_bmp(width: int, height: int) -> bytes:
    """A pixel, and the end of its row."""
    colours = b"".join(bytes([value, 255 - value, value, 0]) for value in range(256))
    pixels = b"\1\1\0\0" * height
    start = 54 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 1, 1, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + colours + pixels


ASKS_FOR_MUCH = {
    "a precinct for every pixel": (jpeg2000((2_000, 2_000), (2_000, 2_000), precincts=FINE), r"2,4\d\d MB to decode"),
    "blocks of 4 x 4": (jpeg2000((3_000, 3_000), (3_000, 3_000), channels=3, blocks=0), r"MB to decode"),
    "tiles of 8 x 8": (jpeg2000((2_000, 2_000), (8, 8), channels=4), r"MB to decode"),
    "scans": (of_many_scans(4_000, 1_000, progressive=True), r"in 1,\d\d\d scans"),
    "a tile larger than the picture": (tiff((10, 10), (16_384, 65_536)), r"8,590 MB to decode"),
    "tiles wider than the picture": (tiff((1, 60_000_000), (4_096, 16)), r"MB to decode"),
    "comments of grey": (b"P2 9 9 255\n" + b"#\n" * 20_000 + b"1 " * 81, "more than 10,000 comments"),
    "comments of bits": (b"P1 9 9\n" + b"#\r" * 20_000 + b"1 " * 81, "more than 10,000 comments"),
    "a row in run-length codes": (run_length_bmp(60_000_000, 1), "in run-length codes"),
}


@pytest.mark.parametrize("what", ASKS_FOR_MUCH)
def test_what_asks_for_much_is_refused(what):
    data, told = ASKS_FOR_MUCH[what]
    with pytest.raises(DataError, match=told):
        decode(data, 64)


def test_a_coding_that_a_tile_brings_along_counts_as_well():
    data = jpeg2000((2_000, 2_000), (2_000, 2_000))
    fine = jpeg2000((2_000, 2_000), (2_000, 2_000), precincts=FINE)
    coding = fine[fine.index(b"\xff\x52") : fine.index(b"\xff\x5c")]
    with pytest.raises(DataError, match="MB to decode"):
        decode(data.replace(b"\xff\x93", coding + b"\xff\x93"), 64)


def ordinary() -> dict[str, bytes]:
    picture = draw_picture(3, size=300)
    rows = "".join(f"# row {row}\n" + "7 " * 300 + "\n" for row in range(300))
    return {
        "ten scans": encoded(picture, "JPEG", progressive=True),
        "scans of a small one": of_many_scans(64, 1_000, progressive=True),
        "tiles": encoded(picture, "JPEG2000", tile_size=(64, 64)),
        "precincts": encoded(picture, "JPEG2000", precinct_size=(64, 64), codeblock_size=(32, 32)),
        "the smallest blocks": encoded(picture, "JPEG2000", codeblock_size=(4, 4)),
        "without loss": encoded(picture, "JPEG2000", irreversible=False, num_resolutions=6),
        "a codestream": encoded(picture, "JPEG2000", no_jp2=True),
        "a tile": tiff((10, 10), (256, 256)),
        "a comment a row": f"P2 300 300 255\n{rows}".encode(),
        "run-length codes": run_length_bmp(640, 480),
        "bits": encoded(Image.new("1", (900, 900), 1), "PPM"),
        "numbers": b"Pf\n200 200\n-1.0\n" + bytes(4 * 200 * 200),
    }


@pytest.mark.parametrize("what", ordinary())
def test_what_encoders_write_is_read(what):
    assert decode(ordinary()[what], 64, max_pixels=1_000_000).shape == (64, 64, 3)


def test_a_large_progressive_photo_is_read():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((8_000, 6_000), Image.Resampling.NEAREST)
    assert decode(encoded(photo, "JPEG", progressive=True), 64).shape == (64, 64, 3)


def _measure(out) -> None:
    from homing.memory import peak_rss_mb

    told = []
    for data in MEASURED:
        need = bytes_to_decode(Image.open(io.BytesIO(data)), data, 64)
        before = peak_rss_mb()
        decode(data, 64)
        told.append(f"{need / 1e6} {peak_rss_mb() - before}")
    out.write_text("\n".join(told))


MEASURED = [
    jpeg2000((400, 400), (400, 400), precincts=FINE),
    jpeg2000((400, 800), (8, 8), channels=4),
    tiff((10, 10), (4_096, 4_096)),
    jpeg2000((1_000, 1_000), (1_000, 1_000), channels=3, blocks=0),
]


def test_no_decoder_takes_more_than_it_was_told_to(tmp_path):
    process = start(_measure, tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    for line in (tmp_path / "out").read_text().splitlines():
        need, taken = map(float, line.split())
        print(f"{taken:.0f} MB of {need:.0f}")
        assert taken < need + 16  # what the allocator keeps, and the bytes of the file
