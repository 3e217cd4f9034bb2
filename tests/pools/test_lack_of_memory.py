"""A lack of memory is this machine's, not the picture's: it ends what is done, and nothing is remembered of it."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn_pools import encoded
from homing.errors import DataError
from homing.pools.decoding import decode
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from processes import LONG_ENOUGH, ended, start

SIDE = 2_200  # pixels
FREE = 6_000_000  # bytes; pictures below take more


@contextmanager
def little_memory() -> Iterator[None]:
    """What this process has and uses, and a little more; what its heap keeps free would serve first."""
    taken = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + FREE, before[1]))
    hoard: list[np.ndarray] = []
    try:
        with suppress(MemoryError):
            while True:
                hoard.append(np.empty(2**20, np.uint8))
        del hoard[-FREE // 2**20 :]
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def large(kind: str, **options: object) -> bytes:
    return encoded(Image.new("RGB", (SIDE, SIDE), "red"), kind, **options)


def _decode_each(folder: Path, out: Path) -> None:
    told, small = {}, Image.new("RGB", (64, 64))
    for kind in ("PNG", "BMP", "WEBP", "JPEG", "TIFF"):
        decode(encoded(small, kind), 64)  # what decoders load late, they have then
    for path in folder.iterdir():
        data = path.read_bytes()
        with little_memory():
            try:
                decode(data, 64)
                told[path.name] = "read"
            except Exception as error:
                told[path.name] = f"{type(error).__name__}: {error}"
    out.write_text(json.dumps(told))


def test_every_decoder_that_lacks_memory_says_so(tmp_path):
    """Some of them call it damage. What is damaged stays so where memory is short."""
    kinds: dict[str, dict[str, object]] = {"PNG": {}, "BMP": {}, "WEBP": {"method": 0}, "JPEG": {"progressive": True}}
    kinds |= {"TIFF": {"compression": "tiff_lzw"}}
    (tmp_path / "in").mkdir()
    for kind, options in kinds.items():
        (tmp_path / "in" / kind).write_bytes(large(kind, **options))
    (tmp_path / "in" / "damaged").write_bytes(encoded(Image.new("RGB", (64, 64), "red"), "PNG")[:60])
    process = start(_decode_each, tmp_path / "in", tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    told = json.loads((tmp_path / "out").read_text())
    assert told.pop("damaged").startswith("DataError: not a readable image")
    assert set(told) == set(kinds)
    assert {kind: text for kind, text in told.items() if not text.startswith("MemoryError: ")} == {}
    assert "2200 x 2200 pixels" in told["PNG"]
    assert "data.max_pixels" in told["PNG"]


def _load_twice(root: Path, out: Path) -> None:
    pool = read_pool(PoolSpec(path=str(root)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=64)
    rows = np.arange(len(images))
    first = list(images.loading([rows[1:]], digest=True))  # what decoders load late, they have then
    with little_memory(), pytest.raises(MemoryError, match=r"x/large\.png: there is not enough memory"):
        list(images.loading([rows], digest=True))
    out.write_text(json.dumps([len(loaded.bad) for loaded in (*first, *images.loading([rows], digest=True))]))


def test_what_is_loaded_ends_with_the_name_of_the_picture_and_is_read_the_next_time(tmp_path):
    (tmp_path / "pool" / "x").mkdir(parents=True)
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "pool" / "x" / "small.png")
    (tmp_path / "pool" / "x" / "large.png").write_bytes(large("PNG"))
    process = start(_load_twice, tmp_path / "pool", tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 0, (tmp_path / "err").read_text()
    assert json.loads((tmp_path / "out").read_text()) == [0, 0]


def test_damage_is_no_lack_of_memory_where_there_is_enough():
    with pytest.raises(DataError, match="not a readable image"):
        decode(large("PNG")[:-2_000], 64)
