import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFont

from drawn_pools import encoded
from homing.pools.problem import open_problem, overlaps
from homing.quickstart import (
    NUM_HIDDEN,
    NUM_PRINTED,
    SHARE_WRONG,
    SHOTS,
    digit_fonts,
    draw_pools,
    handwritten,
    num_pictures,
    printed,
)
from homing.recipe.data import Data, PoolSpec


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder, advanced = tmp_path_factory.mktemp("quickstart"), []
    draw_pools(folder, 3, advanced.append)
    assert sum(advanced) == num_pictures() == NUM_PRINTED + 1_797
    return folder


@pytest.fixture(scope="module")
def problem(drawn):
    roles = {role: PoolSpec(path=str(drawn / role)) for role in ("source", "target", "test")}
    return open_problem(Data(**roles))


def scans_in(pool, rows) -> set[bytes]:
    return {pool.read(int(row)) for row in rows}


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_pools_have_the_sizes_that_the_quickstart_promises(problem):
    assert len(problem.source) == NUM_PRINTED + NUM_HIDDEN == 2_700
    assert Counter(problem.target.labels) == {str(digit): SHOTS for digit in range(10)}
    assert len(problem.test) == 1_797 - 10 * SHOTS - NUM_HIDDEN == 1_447
    assert problem.classes == tuple("0123456789")


def test_the_truth_says_which_pictures_are_handwritten_and_which_labels_are_wrong(problem):
    source = problem.source
    matches, clean = source.flags("matches"), source.flags("clean")
    assert matches.sum() == NUM_HIDDEN
    assert (~clean).sum() == round(SHARE_WRONG * len(source))
    assert [origin == "handwritten" for origin in source.columns["origin"]] == matches.tolist()
    # wrong labels fall on hidden scans as on all others: 60 expected, 4 standard deviations
    assert abs((matches & ~clean).sum() - SHARE_WRONG * NUM_HIDDEN) < 28


def test_labels_are_right_where_the_truth_says_so(problem):
    scans, shown = handwritten()
    known = {as_stored(ink): int(digit) for ink, digit in zip(scans, shown, strict=True)}
    source, matches, clean = problem.source, problem.source.flags("matches"), problem.source.flags("clean")
    for row in np.flatnonzero(matches):
        digit = known[source.read(int(row))]
        assert (source.labels[row] == str(digit)) == clean[row]


def as_stored(ink) -> bytes:
    """A scan as the file that the quickstart makes of it."""
    small = Image.fromarray(np.round(255 * (1 - ink)).astype(np.uint8))
    return encoded(small.resize((64, 64), Image.Resampling.BICUBIC))


def test_no_scan_of_the_test_is_in_source_or_target(problem):
    assert overlaps(problem) == []
    test = scans_in(problem.test, range(len(problem.test)))
    assert len(test) == len(problem.test)
    assert test.isdisjoint(scans_in(problem.target, range(len(problem.target))))
    assert test.isdisjoint(scans_in(problem.source, np.flatnonzero(problem.source.flags("matches"))))


def test_the_metadata_lists_every_picture_of_the_source_in_its_folder(drawn, problem):
    with (drawn / "source" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file_name"] for row in rows) == sorted(problem.source.ids)
    assert all(row["file_name"].startswith(row["label"] + "/") for row in rows)
    assert not (drawn / "target" / "metadata.csv").exists()


def test_the_same_seed_draws_the_same_files_over_those_of_another_drawing(drawn, tmp_path):
    (tmp_path / "target" / "3").mkdir(parents=True)
    (tmp_path / "target" / "3" / "09999.png").write_bytes(b"of another seed")
    (tmp_path / "target" / "mine.txt").write_bytes(b"not ours")
    draw_pools(tmp_path, 3)
    assert contents(tmp_path) == contents(drawn) | {"target/mine.txt": b"not ours"}


def test_other_seeds_draw_other_digits():
    first, again, other = (next(printed(1, np.random.default_rng(seed)))[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_every_font_has_all_digits():
    for path in digit_fonts():
        font = ImageFont.truetype(path, 48)
        assert len({bytes(font.getmask(digit)) for digit in "0123456789"}) == 10, path
    assert len(digit_fonts()) >= 20


def test_printed_digits_come_in_turn_and_no_two_alike():
    digits = list(printed(200, np.random.default_rng(0)))
    assert [digit for _, digit in digits] == [number % 10 for number in range(200)]
    assert all(ink.shape == (8, 8) and ink.min() >= 0 and ink.max() <= 1 and ink.sum() > 1.5 for ink, _ in digits)
    assert len({ink.tobytes() for ink, _ in digits}) == 200
