"""Whatever bytes stand where a picture is expected: it is decoded, or refused in one line, and soon."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from fuzz import damaged, encoded, pictures
from homing.errors import DataError
from homing.outputs.report.pictures import thumbnail
from homing.pools.decoding import decode
from long_runs import often

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8))
WIDE = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)


@pytest.mark.timeout(3_600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(often(1, 20)))
def test_a_damaged_picture_is_decoded_or_refused_in_one_line(seed):
    generator, sound = random.Random(seed), pictures()
    told: list[str] = []
    slowest, count = 0.0, often(600, 10_000)
    for number in range(count):
        data = damaged(generator.choice(sound), generator)
        started = time.thread_time()
        try:
            assert decode(data, 16, max_pixels=4_000_000).shape == (16, 16, 3)
        except DataError as error:
            told.append(str(error))
        if number % 10 == 0:
            thumbnail(data)
        slowest = max(slowest, time.thread_time() - started)
    print(f"{count:,} inputs, {len(told):,} refused, slowest {slowest:.2f} s")
    assert 0 < len(told) < count
    assert [text for text in told if "\n" in text or " at 0x" in text] == []
    assert slowest < 10


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


MANY = 300_000


def crowded() -> dict[str, bytes]:
    png, jpeg, gif = (encoded(PICTURE, kind) for kind in ("PNG", "JPEG", "GIF"))
    tags = b"".join(struct.pack(">HHII", tag, 4, 200_000, 8) for tag in range(60_000))
    directory = b"MM\0*\0\0\0\x08" + struct.pack(">H", 60_000) + tags + bytes(900_000)
    comma = gif.index(b",\0\0\0\0")
    return {
        "png chunks": png[:33] + chunk(b"quXx", b"") * MANY + png[33:],
        "png texts": png[:33] + chunk(b"tEXt", b"a\0b") * MANY + png[33:],
        "png text bomb": png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)) * 500 + png[33:],
        "png exif": png[:33] + chunk(b"eXIf", directory) + png[33:],
        "gif comments": gif[:comma] + b"\x21\xfe\x01a\x00" * MANY + gif[comma:],
        "jpeg comments": jpeg[:2] + b"\xff\xfe\x00\x03a" * MANY + jpeg[2:],
        "jpeg exif": jpeg[:2] + b"\xff\xe1\x00\x09Exif\0\0a" * 10 * MANY + jpeg[2:],
        "jpeg profiles": jpeg[:2] + b"\xff\xe2\x00\x11ICC_PROFILE\0\x01\xffa" * MANY + jpeg[2:],
    }


@pytest.mark.parametrize("kind", crowded())
def test_hundreds_of_thousands_of_chunks_texts_or_tags_end_in_seconds(kind):
    data = crowded()[kind]
    started = time.thread_time()
    try:
        decode(data, 16)
    except DataError as error:
        print(error)
    assert time.thread_time() - started < 8  # 1 on a machine at rest


def test_thousands_of_damaged_tags_do_not_fill_the_terminal(tmp_path):
    """Pillow warns of each tag: 5,000 lines for one JPEG."""
    tags = b"".join(struct.pack(">HHII", tag, 4, 200_000, 8) for tag in range(5_000))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5_000) + tags
    jpeg = encoded(PICTURE, "JPEG")
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    code = "from homing.pools.decoding import decode; print(decode(open('a.jpg', 'rb').read(), 8).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(8, 8, 3)\n", "")
