import numpy as np
import pytest

from drawn_pools import draw_pool
from homing.features.kept_looks import KeptLooks, kept_looks
from homing.pools.looks import looks_of
from processes import LONG_ENOUGH, ended, start
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


def merge_again_and_again(path, ends):
    """As another run removes files that it merged and writes its own."""
    content, beside = path.read_bytes(), path.with_name("written")
    while not ends.exists():
        path.unlink()
        beside.write_bytes(content)
        beside.rename(path)


def test_a_file_that_another_run_removes_meanwhile_is_not_there(tmp_path):
    folder, ends = tmp_path / "store", tmp_path / "ends"
    folder.mkdir()
    digests = np.arange(64, dtype=np.uint8).reshape(4, 16)
    kept = KeptLooks(folder)
    kept.add(digests, np.arange(1, 5, dtype=np.uint64))
    kept.keep()
    other = start(merge_again_and_again, *folder.iterdir(), ends)
    found = set()
    while other.exitcode is None:
        found |= {tuple(kept_looks(folder, digests).tolist()) for _ in range(2000)}
        if len(found) == 2:
            ends.touch()
            assert ended(other, LONG_ENOUGH)
    assert other.exitcode == 0
    assert found == {(0, 0, 0, 0), (1, 2, 3, 4)}
