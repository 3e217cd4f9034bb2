import shutil

import numpy as np
import pytest

from drawn_pools import draw_pool
from homing.errors import DataError
from homing.pools.problem import open_problem, overlaps
from homing.recipe.data import Data, PoolSpec


@pytest.fixture
def root(tmp_path):
    draw_pool(tmp_path / "a", {"1": 2, "2": 3, "10": 2}, seed=1)
    draw_pool(tmp_path / "b", {"2": 1, "cat": 2}, seed=2)
    draw_pool(tmp_path / "target", {"10": 1, "2": 2}, seed=3)
    draw_pool(tmp_path / "test", {"2": 2, "cat": 1}, seed=4)
    return tmp_path


def data_at(root, sources=("a", "b"), test="test", **limits) -> Data:
    return Data(
        source=tuple(PoolSpec(path=str(root / name)) for name in sources),
        target=PoolSpec(path=str(root / "target")),
        test=PoolSpec(path=str(root / test)) if test else None,
        **limits,
    )


def test_classes_are_matched_by_name_over_all_pools(root):
    problem = open_problem(data_at(root))
    assert problem.classes == ("1", "10", "2", "cat")
    names = [problem.classes[label] for label in problem.labels]
    assert names == [label for pool in problem.pools for label in pool.labels]


def test_rows_count_over_source_target_and_test(root):
    problem = open_problem(data_at(root))
    assert (len(problem.source), len(problem.target), len(problem)) == (10, 3, 16)
    assert np.concatenate([problem.source_rows, problem.target_rows, problem.test_rows]).tolist() == list(range(16))
    store, rows, names = problem.joined()
    assert names[0] == "source a/1/000.png"
    assert names[10] == "target 10/000.png"
    for row, name in enumerate(names):
        role, _, sample_id = name.partition(" ")
        folder = root if role == "source" else root / role
        assert store.read(rows[row]) == (folder / sample_id).read_bytes()


def test_a_problem_without_test_has_no_test_rows(root):
    problem = open_problem(data_at(root, test=None))
    assert problem.test_rows.tolist() == []
    assert len(problem.pools) == 2


def test_classes_of_the_target_alone_join_those_of_the_source(root):
    draw_pool(root / "target", {"cat": 1, "gnu": 1})
    problem = open_problem(data_at(root, sources=("a",)))
    assert problem.classes == ("1", "10", "2", "cat", "gnu")
    assert problem.only_in_target == ("cat", "gnu")
    assert problem.num_outputs == 5
    names = [problem.classes[label] for label in problem.labels]
    assert names == [label for pool in problem.pools for label in pool.labels]
    assert open_problem(data_at(root)).only_in_target == ("gnu",)


def test_a_class_of_the_test_alone_is_refused_with_the_one_that_may_be_meant(root):
    draw_pool(root / "target", {"tiger": 1})
    draw_pool(root / "test", {"tigre": 1, "CAT": 1})
    with pytest.raises(DataError) as caught:
        open_problem(data_at(root))
    (text,) = str(caught.value).splitlines()
    assert text.startswith(
        "test: class 'CAT', 'tigre' is not among the source's or the target's classes ('1', '10', '2', 'cat', 'tiger')"
    )
    assert "'CAT' (U+0043 U+0041 U+0054) is not quite 'cat'" in text
    assert text.endswith("did you mean 'tiger' for 'tigre'?")


def test_a_target_with_no_class_of_the_source_is_refused_in_each_role(root):
    draw_pool(root / "mine", {"gnu": 2, "yak": 1})
    data = data_at(root, sources=("a",)).model_copy(update={"target": PoolSpec(path=str(root / "mine"))})
    with pytest.raises(DataError) as caught:
        open_problem(data)
    target, test = str(caught.value).splitlines()
    assert target.startswith("target: none of the target's classes ('gnu', 'yak') is among the source's classes")
    assert "labels: other" in target
    assert test.startswith("test: class 'cat' is not among")


@pytest.mark.parametrize("name", ["Polar Bear", "polar-bear", "polar_bear ", "POLARBEAR", "ｐolar bear"])
def test_a_class_in_another_spelling_is_refused_with_the_rename_that_mends_it(root, name):
    draw_pool(root / "a", {"polar bear": 1})
    draw_pool(root / "target", {name: 1})
    with pytest.raises(DataError, match="differ only by case, spaces, hyphens") as caught:
        open_problem(data_at(root))
    assert f"rename: {{{name!r}: 'polar bear'}}" in str(caught.value)


def kinds_at(root, source, target, **more) -> Data:
    roles = {"source": ("a", source), "target": ("target", target)}
    pools = {role: PoolSpec(path=str(root / name), labels=labels) for role, (name, labels) in roles.items()}
    return Data(**pools, **more)


def test_classes_of_another_kind_stand_behind_the_targets(root):
    problem = open_problem(kinds_at(root, "other", "shared"))
    assert (problem.classes, problem.own_classes) == (("10", "2"), ("1", "10", "2"))
    assert problem.source_classes == problem.own_classes
    assert [problem.source_classes[label] for label in problem.source_labels] == list(problem.source.labels)
    assert set(problem.labels[problem.source_rows]) == {2, 3, 4}
    assert [problem.classes[label] for label in problem.labels[problem.target_rows]] == list(problem.target.labels)
    assert problem.without([0, 7]).own_classes == problem.own_classes
    with pytest.raises(DataError, match="test: class 'cat' is not among the target's classes"):
        open_problem(kinds_at(root, "other", "shared", test=PoolSpec(path=str(root / "test"))))
    alone = open_problem(kinds_at(root, "other", "shared"), trains=False)
    assert (alone.classes, alone.own_classes, alone.has_target_labels) == (("1", "10", "2"), (), False)


def test_an_unlabelled_target_has_no_labels_and_can_have_a_test(root):
    problem = open_problem(kinds_at(root, "shared", "none"))
    assert problem.labels[problem.target_rows].tolist() == [-1, -1, -1]
    assert not problem.is_measured
    test = PoolSpec(path=str(draw_pool(root / "fine", {"2": 2})))
    problem = open_problem(kinds_at(root, "shared", "none", test=test))
    assert problem.is_measured
    assert [problem.classes[label] for label in problem.labels[problem.test_rows]] == ["2", "2"]


def test_pools_that_cannot_be_read_are_told_together(root):
    shutil.rmtree(root / "b")
    shutil.rmtree(root / "target")
    with pytest.raises(DataError) as caught:
        open_problem(data_at(root))
    source, target = str(caught.value).splitlines()
    assert source.startswith(f"source: {root / 'b'}: no such file or folder")
    assert target.startswith(f"target: {root / 'target'}: no such file or folder")


def test_a_single_class_in_both_pools_is_refused(root):
    draw_pool(root / "single", {"2": 3})
    data = data_at(root, sources=("single",), test=None)
    assert open_problem(data).classes == ("10", "2")  # the target has another one
    with pytest.raises(DataError, match="single class '2'; there is nothing to tell apart"):
        open_problem(data.model_copy(update={"target": PoolSpec(path=str(root / "single"))}))


def test_left_out_rows_take_their_labels_with_them(root):
    problem = open_problem(data_at(root))
    gone = {0, 9, 10, 15}
    smaller = problem.without(gone)
    names, kept = problem.joined()[2], smaller.joined()[2]
    assert kept == tuple(name for row, name in enumerate(names) if row not in gone)
    assert smaller.labels.tolist() == [label for row, label in enumerate(problem.labels) if row not in gone]
    assert smaller.classes == problem.classes
    store, rows, names = smaller.joined()
    for row, name in enumerate(names):
        role, _, sample_id = name.partition(" ")
        assert store.read(rows[row]) == ((root if role == "source" else root / role) / sample_id).read_bytes()
    assert problem.without([]).joined()[2] == problem.joined()[2]


def test_a_role_of_which_nothing_is_left_is_refused(root):
    problem = open_problem(data_at(root))
    with pytest.raises(DataError, match="target: none of its 3 images can be read"):
        problem.without(problem.target_rows)


def test_the_same_picture_in_two_roles_is_found_by_its_bytes(root):
    assert overlaps(open_problem(data_at(root))) == []
    shutil.copy(root / "target" / "2" / "000.png", root / "test" / "cat" / "copy.png")
    shutil.copy(root / "a" / "1" / "000.png", root / "test" / "2" / "copy.png")
    assert overlaps(open_problem(data_at(root))) == [
        "the same picture is in target (2/000.png) and test (cat/copy.png)",
        "the same picture is in source (a/1/000.png) and test (2/copy.png)",
    ]


def test_many_shared_pictures_are_listed_up_to_a_number(root):
    draw_pool(root / "a", {"2": 30}, seed=7)
    shutil.copytree(root / "a" / "2", root / "target" / "2", dirs_exist_ok=True)
    found = overlaps(open_problem(data_at(root)))
    assert len(found) == 21
    assert found[-1] == "... and 10 further pictures of source in target"


def test_a_picture_that_cannot_be_read_overlaps_with_nothing(root):
    for name in ("target/2/000.png", "test/2/000.png"):
        (root / name).unlink()
        (root / name).symlink_to(root / "nowhere")
    assert overlaps(open_problem(data_at(root))) == []
