"""What the worst pictures that are allowed take: small files, many pixels, formats that hold several copies of them."""

from __future__ import annotations

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

WORST = 640  # MB: 10 bytes for each of the 64,000,000 pixels that data.max_pixels allows at first


def flat_webp(size: tuple[int, int]) -> bytes:
    return encoded(Image.new("RGB", size, "red"), "WEBP", lossless=True, quality=0, method=0)


def _measure(root, out) -> None:
    from homing.memory import peak_rss_mb

    pool = read_pool(PoolSpec(path=str(root)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=64, workers=4)
    before = peak_rss_mb()
    assert images.find_bad() == []
    images.close()
    out.write_text(f"{before} {peak_rss_mb()}")


def test_four_of_the_worst_at_once_take_what_one_does(tmp_path):
    """A WebP of 39.7 million pixels in some hundred bytes, by four threads; four at once took 7.1 GB."""
    (tmp_path / "pool" / "x").mkdir(parents=True)
    data = flat_webp((6_300, 6_300))
    assert len(data) < 1_000
    for number in range(4):
        (tmp_path / "pool" / "x" / f"{number}.webp").write_bytes(data)
    process = start(_measure, tmp_path / "pool", tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    before, peak = map(float, (tmp_path / "out").read_text().split())
    print(f"{peak - before:.0f} MB above the imports")
    assert peak - before < WORST + 120  # strips, and what the allocator keeps


@pytest.mark.parametrize("size", [(8_000, 7_999), (6_400, 6_400)])
def test_pixels_that_cost_several_times_their_number_count_as_often(size):
    with pytest.raises(DataError, match=r"pixels of WEBP, which takes .* MB to decode; at data.max_pixels: 64000000"):
        decode(flat_webp(size), 64)


def test_what_the_limit_is_not_about_is_read():
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert decode(encoded(Image.fromarray(noise), "WEBP"), 16, max_pixels=90 * 120).shape == (
        16,
        16,
        3,
    )  # 16 MB are always there
