"""A test out of the target's own images: by ids, class by class, no picture on both sides, stable."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

from drawn_pools import draw_pool
from homing.errors import DataError, RecipeError
from homing.pools.pool import Pool
from homing.pools.problem import open_problem
from homing.pools.reading import read_pool
from homing.pools.split_off import rows_of_test, split_off
from homing.pools.texts import Texts
from homing.recipe.data import Data, PoolSpec
from homing.recipe.reading import parse_recipe

HALF = (0.0, 0.5)
MOST = 64_000_000


def rows_only(ids, labels) -> Pool:
    """A pool of which nothing is read but ids and labels."""
    return Pool("t", Texts(ids), Texts(labels), None, Texts(ids), {}, np.arange(len(ids)))


def listed(count, classes=("ant", "bee", "cat"), first=0):
    labels = [classes[number % len(classes)] for number in range(count)]
    return [f"{label}/{number + first:04d}.png" for number, label in enumerate(labels)], labels


def chosen(pool, stretch=HALF, copies=()) -> set[str]:
    return {str(pool.ids[row]) for row in np.flatnonzero(rows_of_test(pool, stretch, copies))}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_each_class_gives_its_share_to_within_an_image(share):
    ids, labels = listed(300)
    found = Counter(name.partition("/")[0] for name in chosen(rows_only(ids, labels), (0.0, share)))
    assert all(abs(count - 100 * share) <= 1 for count in found.values())
    assert len(found) == 3


def test_the_order_of_rows_plays_no_part():
    ids, labels = listed(60)
    order = np.random.default_rng(0).permutation(60)
    again = rows_only([ids[row] for row in order], [labels[row] for row in order])
    assert chosen(again) == chosen(rows_only(ids, labels))


def test_an_image_more_moves_one_other_of_its_class_at_most():
    ids, labels = listed(60)
    before = chosen(rows_only(ids, labels))
    for number in range(40):
        new = f"ant/new{number}.png"
        after = chosen(rows_only([*ids, new], [*labels, "ant"])) - {new}
        assert len(before ^ after) <= 1
        assert all(name.startswith("ant") for name in before ^ after)


def test_folds_are_parts_that_have_no_image_in_common():
    pool = rows_only(*listed(100))
    parts = [chosen(pool, (fold / 5, (fold + 1) / 5)) for fold in range(5)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100
    assert all(19 <= len(part) <= 22 for part in parts)


@pytest.mark.parametrize("stretch", [(0.0, 0.9), (0.8, 1.0), (0.0, 0.01)])
def test_something_of_each_class_stays(stretch):
    labels = ["one", "two", "two", *["many"] * 9]
    pool = rows_only([f"{number}.png" for number in range(12)], labels)
    test = rows_of_test(pool, stretch, ())
    assert {labels[row] for row in np.flatnonzero(~test)} == {"one", "two", "many"}
    assert not test[0]


def test_copies_stand_on_one_side_also_where_a_chain_leads_from_one_to_the_next():
    ids, labels = listed(40, ("ant", "bee"))
    copies = [(0, 2), (2, 4), (4, 7), (11, 13), (13, 11)]
    test = rows_of_test(rows_only(ids, labels), HALF, copies)
    assert len(set(test[[0, 2, 4, 7]])) == len(set(test[[11, 13]])) == 1


def test_a_class_of_one_picture_and_its_copies_stays():
    pool = rows_only(*listed(6, ("ant", "bee")))
    assert not rows_of_test(pool, (0.0, 0.9), [(0, 2), (2, 4)])[[0, 2, 4]].any()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    draw_pool(folder / "source", {"cat": 6, "dog": 6}, seed=1)
    draw_pool(folder / "target", {"cat": 8, "dog": 6}, seed=2)
    return folder


def tree(root, **test) -> str:
    data = {role: {"path": str(root / role)} for role in ("source", "target")}
    return yaml.safe_dump({"data": data | {"test": test}, "training": {"epochs": 1}})


def test_real_copies_and_pictures_saved_anew_never_stand_on_both_sides(tmp_path):
    folder = draw_pool(tmp_path / "target", {"cat": 8, "dog": 6}, seed=3, size=96)
    pairs = []
    for number, path in enumerate(sorted(folder.glob("*/*.png"))):
        new = path.with_name(f"z{number}.{'png' if number % 2 else 'jpg'}")
        if number % 2:
            shutil.copy(path, new)
        else:
            Image.open(path).resize((60, 60)).save(new, quality=80)
        pairs.append((f"{path.parent.name}/{path.name}", f"{path.parent.name}/{new.name}"))
    target, test = split_off(read_pool(PoolSpec(path=str(folder))), HALF, MOST)
    sides = [set(target.ids), set(test.ids)]
    assert all(sum({first, second} <= side for side in sides) == 1 for first, second in pairs)
    assert (len(target) + len(test), target.classes, test.classes) == (28, ("cat", "dog"), ("cat", "dog"))


def test_a_problem_has_the_part_as_its_test(root):
    problem = open_problem(parse_recipe(tree(root, split_off=0.5)).data)
    assert problem.test is not None
    assert (len(problem.source), len(problem.target), len(problem.test), len(problem)) == (12, 7, 7, 26)
    assert list(problem.by_role) == ["source", "target", "test"]
    names = [problem.classes[label] for label in problem.labels]
    assert names == [label for pool in problem.pools for label in pool.labels]
    assert problem.test.read_as[0].kind == "7 of the 14 images of the target, by their ids"


def test_another_process_splits_alike(root):
    code = (
        "import sys, json\nfrom homing.recipe.reading import parse_recipe\n"
        "from homing.pools.problem import open_problem\n"
        "print(json.dumps(list(open_problem(parse_recipe(sys.stdin.read()).data).test.ids)))"
    )
    text = tree(root, fold=2, folds=4)
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True)
    problem = open_problem(parse_recipe(text).data)
    assert problem.test is not None
    assert json.loads(done.stdout) == list(problem.test.ids)


def test_named_targets_are_split_each_and_the_recipe_is_read_again_as_it_is_written(root):
    source, target = ({"path": str(root / name)} for name in ("source", "target"))
    data = {"source": source, "target": {"a": target, "b": source}}
    recipe = parse_recipe(json.dumps({"data": data | {"test": {"split_off": 0.25}}, "training": {"epochs": 1}}))
    assert parse_recipe(recipe.to_yaml()) == recipe
    sizes = {name: len(open_problem(one.data).test or ()) for name, one in recipe.by_target().items()}
    assert sizes == {"a": 4, "b": 3}
    own = data | {"test": {"a": {"fold": 1}, "b": {"path": str(root / "target")}}}
    recipe = parse_recipe(json.dumps({"data": own, "training": {"epochs": 1}}))
    assert parse_recipe(recipe.to_yaml()).by_target()["a"].data.test_split is not None


def test_a_bad_image_stands_somewhere_and_is_told_later(root, tmp_path):
    shutil.copytree(root / "target", tmp_path / "target")
    (tmp_path / "target/cat/000.png").write_bytes(b"x")
    target, test = split_off(read_pool(PoolSpec(path=str(tmp_path / "target"))), HALF, MOST)
    assert "cat/000.png" in {*target.ids, *test.ids}


def test_too_few_images_are_an_error(tmp_path):
    draw_pool(tmp_path / "pool", {"cat": 1, "dog": 1})
    pool = PoolSpec(path=str(tmp_path / "pool"))
    with pytest.raises(DataError, match=r"test: 0\.5 of the 2 images of the target are too few for a test"):
        open_problem(Data(source=pool, target=pool, test={"split_off": 0.5}))


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"split_off": 0.5, "fold": 1}, "give either split_off"),
        ({"folds": 3}, "give either split_off"),
        ({"split_off": 1.0}, "data.test.split_off: less than 1 is wanted"),
        ({"split_off": 0}, "data.test.split_off: more than 0 is wanted"),
        ({"fold": 6}, "data.test.fold: 6 is more than the 5 folds; allowed are 1 to 5"),
        ({"fold": 0}, "data.test.fold: at least 1 is wanted"),
        ({"split_of": 0.5}, "data.test.path: is missing"),
    ],
)
def test_what_is_no_part_is_told(root, test, told):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree(root, **test))
    assert told in str(caught.value)


def test_a_target_without_labels_cannot_be_split(root):
    text = tree(root, split_off=0.5).replace(f"path: {root}/target", f"path: {root}/target\n    labels: none")
    with pytest.raises(RecipeError, match=r"data\.test cannot be a part of a target without labels"):
        parse_recipe(text)
