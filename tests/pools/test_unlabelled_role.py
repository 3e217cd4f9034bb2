"""Unlabelled images as a role of a problem: read without labels, last in the rows, nothing twice."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from drawn_pools import draw_pool
from homing.errors import DataError
from homing.pools.problem import open_problem, overlaps
from homing.pools.repeated import repeated_rows
from homing.recipe.data import Data


@pytest.fixture
def root(tmp_path):
    for seed, role in enumerate(("source", "target", "test")):
        draw_pool(tmp_path / role, {"cat": 3, "dog": 2}, seed=seed)
    draw_pool(tmp_path / "unlabelled", {"2024": 2, "2025/May": 2, "train": 1}, seed=7)
    return tmp_path


def data_at(root, *roles, **unlabelled):
    tree = {role: {"path": str(root / role)} for role in ("source", "target", *roles)}
    return Data.model_validate(tree | {"unlabelled": {"path": str(root / "unlabelled"), **unlabelled}})


@pytest.mark.parametrize("roles", [(), ("test",)])
def test_unlabelled_rows_stand_behind_all_others(root, roles):
    problem = open_problem(data_at(root, *roles))
    assert list(problem.by_role) == ["source", "target", *roles, "unlabelled"]
    assert problem.unlabelled_rows.tolist() == list(range(len(problem) - 5, len(problem)))
    assert problem.labels[problem.unlabelled_rows].tolist() == [-1] * 5
    assert problem.classes == ("cat", "dog")
    assert problem.id_of(len(problem) - 1) == "train/000.png"
    _, _, names = problem.joined()
    assert names[len(problem) - 5 :] == [f"unlabelled {name}" for name in problem.unlabelled.ids]
    smaller = problem.without([0, len(problem) - 2])
    assert [len(pool) for pool in smaller.pools] == [4, 5, *([5] * len(roles)), 4]
    assert smaller.labels[smaller.unlabelled_rows].tolist() == [-1] * 4


def test_the_names_of_its_folders_and_images_directly_in_it_are_of_no_matter(root):
    shutil.copy(root / "unlabelled/train/000.png", root / "unlabelled/top.png")
    (root / "unlabelled/empty").mkdir()
    assert len(open_problem(data_at(root)).unlabelled) == 6
    assert len(open_problem(data_at(root, limit=2, name="inbox")).unlabelled) == 2
    assert open_problem(data_at(root, split="2025")).unlabelled.ids[0] == "May/000.png"


def test_a_problem_without_unlabelled_images_has_no_such_rows(root):
    problem = open_problem(Data.model_validate({r: {"path": str(root / r)} for r in ("source", "target", "test")}))
    assert problem.unlabelled_rows.tolist() == []
    assert list(problem.by_role) == ["source", "target", "test"]


def digests_of(problem):
    store, rows, _ = problem.joined()
    found = [hashlib.sha256(store.read(int(row))).digest()[:16] for row in rows]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16).copy()


def test_pictures_that_are_there_already_are_found_with_the_role_that_has_them(root):
    for name, place in (("test/cat/000.png", "a"), ("target/dog/001.png", "b"), ("source/cat/002.png", "c")):
        shutil.copy(root / name, root / "unlabelled" / f"{place}.png")
    shutil.copy(root / "test/cat/000.png", root / "target/cat/again.png")  # of two roles that have it, the test counts
    shutil.copy(root / "unlabelled/2024/001.png", root / "unlabelled/z.png")
    problem = open_problem(data_at(root, "test"))
    digests = digests_of(problem)
    digests[problem.unlabelled_rows[0]] = 0  # cannot be read
    digests[problem.source_rows[0]] = 0
    found = repeated_rows(problem, digests)
    named = {role: [problem.id_of(row) for row in rows] for role, rows in found.items()}
    assert named == {"test": ["a.png"], "target": ["b.png"], "source": ["c.png"], "unlabelled": ["z.png"]}


def test_a_pool_of_which_nothing_is_new_is_refused(root):
    shutil.rmtree(root / "unlabelled")
    shutil.copytree(root / "test", root / "unlabelled")
    problem = open_problem(data_at(root, "test"))
    with pytest.raises(DataError, match="all of its 5 images are in the test too; give others"):
        repeated_rows(problem, digests_of(problem))


def test_files_that_are_no_images_are_repeated_by_nothing(root):
    for place in ("a.png", "b.png"):
        (root / "unlabelled" / place).touch()  # all empty files have the same bytes
    (root / "test/cat/empty.png").touch()
    shutil.copy(root / "test/cat/000.png", root / "unlabelled/c.png")
    problem = open_problem(data_at(root, "test"))
    bad = [row for row in range(len(problem)) if problem.id_of(row) in ("a.png", "b.png", "cat/empty.png")]
    found = repeated_rows(problem, digests_of(problem), bad)
    assert {role: [problem.id_of(row) for row in rows] for role, rows in found.items()} == {"test": ["c.png"]}


def test_a_pool_of_which_nothing_new_can_be_read_is_refused_for_what_it_is(root):
    shutil.rmtree(root / "unlabelled")
    shutil.copytree(root / "test", root / "unlabelled")
    (root / "unlabelled/cat/000.png").write_bytes(b"no picture")
    problem = open_problem(data_at(root, "test"))
    with pytest.raises(DataError, match="all of its 4 images that can be read are in the test too; give others"):
        repeated_rows(problem, digests_of(problem), [int(problem.unlabelled_rows[0])])


def test_pictures_of_the_test_among_the_unlabelled_are_told_by_validate(root):
    shutil.copy(root / "test/cat/000.png", root / "unlabelled/a.png")
    assert overlaps(open_problem(data_at(root, "test"))) == [
        "the same picture is in unlabelled (a.png) and test (cat/000.png)"
    ]
