import numpy as np
import pytest

from drawn_pools import draw_pool
from homing.features.kept_looks import kept_looks
from homing.pools.looks import looks_of
from small_scan import SmallScan


@pytest.fixture
def small(tmp_path):
    draw_pool(tmp_path / "pool", {"cat": 20, "dog": 20}, seed=4, size=48)
    return SmallScan(tmp_path / "pool", tmp_path / "cache")


def expected(small):
    pictures = small.pictures()
    return looks_of(pictures.images.fetch(np.arange(40)))


def test_a_scan_leaves_the_looks_of_what_it_decoded_for_every_later_run(small):
    first, _ = small.scan()
    later, _ = small.scan()
    assert (first.num_passed, later.num_passed) == (40, 0)
    folder = small.open().folder
    for found in (first, later):
        assert np.array_equal(kept_looks(folder, found.digests), expected(small))
    assert expected(small).all()


def test_parts_of_a_scan_leave_them_together(small):
    for number in (1, 2, 3):
        small.scan_part(number, 3)
    found, _ = small.scan()
    assert np.array_equal(kept_looks(small.open().folder, found.digests), expected(small))
