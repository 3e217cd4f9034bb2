import shutil

import pytest
import yaml

from drawn_pools import draw_pool
from homing.errors import DataError, RecipeError
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("rename") / "pool", {"1": 2, "cafe\u0301": 1, "car": 2, "cars": 3}, seed=1)


def read(pool, **rename):
    return read_pool(PoolSpec(path=str(pool), rename=rename))


def test_classes_get_other_names_and_two_may_become_one(pool):
    found = read(pool, car="auto", cars="auto")
    assert found.classes == ("1", "auto", "caf\u00e9")
    assert list(found.labels).count("auto") == 5
    assert found.ids == read(pool).ids
    assert read(pool, car="cars", cars="car").labels != read(pool).labels  # two may change places


def test_names_are_compared_in_one_unicode_form(pool):
    assert "kaffee" in read(pool, **{"caf\u00e9": "kaffee"}).classes
    assert "kaffee" in read(pool, **{"cafe\u0301": "kaffee"}).classes


def test_a_number_may_be_written_as_one(pool):
    text = yaml.safe_dump({"data": {"source": {"path": str(pool), "rename": {1: "one"}}, "target": {"path": str(pool)}},
                           "training": {"epochs": 0}})  # fmt: skip
    assert "one" in read_pool(parse_recipe(text).data.sources[0]).classes


@pytest.mark.parametrize(
    ("rename", "told"),
    [
        ({"Car": "auto"}, "there is no class 'Car'; classes are '1', 'caf\u00e9', 'car', 'cars'; did you mean 'car'"),
        ({"bus": "auto", "carss": "x"}, "there is no class 'bus', 'carss'"),
    ],
)
def test_a_name_that_does_not_occur_is_an_error_with_the_one_that_may_be_meant(pool, rename, told):
    with pytest.raises(DataError, match="rename: ") as caught:
        read(pool, **rename)
    assert told in str(caught.value)


def test_a_name_of_no_letter_is_refused(pool):
    with pytest.raises(RecipeError, match=r"data\.source\.rename"):
        parse_recipe(
            f"data: {{source: {{path: {pool}, rename: {{car: ''}}}}, target: {{path: x}}}}\ntraining: {{epochs: 0}}"
        )


def test_labels_of_a_table_are_renamed_before_a_limit_draws(pool, tmp_path):
    shutil.copytree(pool, tmp_path / "pool")
    found = read_pool(PoolSpec(path=str(tmp_path / "pool"), rename={"cars": "car"}, limit=3))
    assert len(found) == 3
    assert "cars" not in found.classes
