"""Pictures that two roles share under other bytes, and those that the source holds twice, in validate and in a run."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from drawn_pools import draw_pool
from homing.features.kept_looks import KeptLooks, kept_looks
from homing.outputs.pool_warnings import overlap_warnings, twin_warnings
from homing.pools.near_duplicates import CANDIDATES, copies_within, looks_of_pool, twin_lines, twins
from homing.pools.problem import open_problem
from homing.pools.reading import read_pool
from homing.recipe.data import Data, PoolSpec

MOST = 64_000_000


def anew(path, to, how=lambda image: image):
    """Save a picture again, smaller, as a JPEG."""
    to.parent.mkdir(exist_ok=True)
    image = Image.open(path).resize((72, 72), Image.Resampling.BICUBIC)
    how(image).save(to, quality=70)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    """Two pictures of the target in the test, one of the source in both; one of the source twice in it."""
    root = tmp_path_factory.mktemp("twins")
    for seed, role in enumerate(("source", "target", "test")):
        draw_pool(root / role, {"cat": 6, "dog": 6}, seed=seed, size=96)
    anew(root / "target/cat/000.png", root / "test/cat/again.jpg")
    anew(root / "target/dog/001.png", root / "test/dog/again.jpg")
    anew(root / "target/dog/002.png", root / "test/dog/mirrored.jpg", ImageOps.mirror)
    shutil.copy(root / "target/dog/003.png", root / "test/dog/copied.png")
    anew(root / "source/cat/002.png", root / "test/cat/from_source.jpg")
    anew(root / "source/cat/002.png", root / "target/cat/from_source.jpg")
    shutil.copy(root / "source/dog/004.png", root / "source/cat/copied.png")
    return open_problem(Data(**{role: PoolSpec(path=str(root / role)) for role in ("source", "target", "test")}))


@pytest.fixture(scope="module")
def looks(problem):
    return np.concatenate([looks_of_pool(pool, MOST) for pool in problem.pools])


def test_pictures_that_were_saved_anew_are_found_and_no_others(problem, looks):
    parts = np.split(looks, np.cumsum([len(pool) for pool in problem.pools])[:-1])
    by_role = dict(zip(problem.by_role, parts, strict=True))
    found = {(one.first, one.second): set(one.pairs) for one in twins(problem.by_role, by_role, MOST)}
    assert found == {
        ("target", "test"): {
            ("cat/000.png", "cat/again.jpg"),
            ("dog/001.png", "dog/again.jpg"),
        },
        ("source", "test"): {("cat/002.png", "cat/from_source.jpg")},
        ("source", "target"): {("cat/002.png", "cat/from_source.jpg")},
        ("source", "source"): {("dog/004.png", "cat/copied.png")},
    }


def test_a_run_warns_of_them_with_what_they_do_to_the_figures(problem, looks):
    told = twin_warnings(problem, looks, MOST)
    assert told[0].endswith(": the model was trained on them, so the figures above are too good.")
    assert any("of the source is in it already (first: " in text for text in told)
    assert len(overlap_warnings(problem)) == 1  # the copy of the same bytes is told there
    assert not any("copied.png" in text for text in told[:-1])
    assert twin_warnings(problem, np.zeros(0, np.uint64), MOST) == []


def test_lines_are_capped(problem, looks):
    lines = twin_lines(problem.by_role, looks, MOST, at_most=1)
    assert lines[0].startswith("nearly the same picture is in target (")
    assert lines[1] == "... and 1 further picture of target in test, nearly the same"
    assert "source: cat/copied.png and dog/004.png are the same picture" in lines


def test_looks_are_kept_by_the_digest_of_the_bytes_in_few_files(tmp_path):
    generator = np.random.default_rng(0)
    digests = generator.integers(0, 255, (60, 32), dtype=np.uint8)
    looks = generator.integers(1, 2**63, 60, dtype=np.uint64)
    for start in range(0, 50, 5):
        kept = KeptLooks(tmp_path)
        kept.add(digests[start : start + 5], looks[start : start + 5])
        kept.add(digests[:0], looks[:0])
        kept.keep()
    order = generator.permutation(60)
    expected = np.where(order < 50, looks[order], 0)
    assert kept_looks(tmp_path, digests[order, :16]).tolist() == expected.tolist()
    assert len(list(tmp_path.iterdir())) < 8
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    assert set(kept_looks(tmp_path, digests)) <= {0, *looks.tolist()}
    KeptLooks(tmp_path).keep()


class CountingReads:
    """A store that counts how often it is read."""

    def __init__(self, store) -> None:
        self._store, self.count = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def read(self, row):
        self.count += 1
        return self._store.read(row)


def test_many_savings_of_a_picture_are_linked_and_each_is_read_once(tmp_path):
    draw_pool(tmp_path, {"cat": 2}, size=96)
    picture = Image.open(tmp_path / "cat" / "000.png")
    for number in range(CANDIDATES + 15):
        picture.putpixel((0, 0), (number, number, number))
        picture.save(tmp_path / "cat" / f"again-{number}.png")
    pool = read_pool(PoolSpec(path=str(tmp_path)))
    looks, counted = looks_of_pool(pool, MOST), CountingReads(pool.store)
    links = copies_within(replace(pool, store=counted), looks, MOST)
    assert len(links) == len(pool) - 2  # a tree of all but the other picture
    assert counted.count <= len(pool)
