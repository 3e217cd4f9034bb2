"""`data.unlabelled` in a recipe: what it may hold, for which targets, and where it has no meaning or no effect."""

from __future__ import annotations

import pytest
import yaml

from homing.errors import RecipeError
from homing.recipe.idle import settings_without_effect
from homing.recipe.reading import parse_recipe


def recipe_of(*overrides, **data):
    pools = {"source": {"path": "/s"}, "target": {"path": "/t"}, "unlabelled": {"path": "/u"}} | data
    return parse_recipe(yaml.safe_dump({"data": pools, "training": {"steps": 3}}), overrides)


def test_a_pool_without_labels_is_read_and_read_back(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of("data.unlabelled.path=inbox", "data.unlabelled.limit=7")
    assert recipe.data.unlabelled.path == str(tmp_path / "inbox")
    assert (recipe.data.unlabelled_pool.labels, recipe.data.unlabelled_pool.limit) == ("none", 7)
    assert parse_recipe(recipe.to_yaml()) == recipe
    assert settings_without_effect(recipe) == []
    assert recipe_of("data.unlabelled=null").data.unlabelled_pool is None


def test_labels_of_it_are_no_key():
    with pytest.raises(
        RecipeError, match=r"unlabelled.label_column: unknown key.*: config, id_column, image_column, limit"
    ):
        recipe_of("data.unlabelled.label_column=kind")


def test_one_pool_serves_every_target_and_named_ones_their_own():
    targets = {"shop": {"path": "/a"}, "street": {"path": "/b"}}
    each = recipe_of(target=targets).by_target()
    assert [one.data.unlabelled.path for one in each.values()] == ["/u", "/u"]
    each = recipe_of(target=targets, unlabelled={"street": {"path": "/v"}}).by_target()
    assert each["shop"].data.unlabelled is None
    assert each["street"].data.unlabelled_pool.path == "/v"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"unlabelled": {"a": {"path": "/u"}}}, "data.unlabelled names several pools, data.target is one"),
        (
            {"target": {"a": {"path": "/t"}}, "unlabelled": {"b": {"path": "/u"}}},
            "data.unlabelled.b: there is no target of that name; there are a",
        ),
        ({"target": {"path": "/t", "labels": "none"}}, "cannot go with data.target.labels: none, guesses are"),
        ({"source": {"path": "/s", "labels": "other"}}, "cannot go with data.source.labels: other, guesses are"),
        ({"source": [{"path": "/s", "labels": "none"}]}, "cannot go with data.source.labels: none, guesses are"),
    ],
)
def test_what_it_cannot_go_with_is_told(data, told):
    with pytest.raises(RecipeError, match=told):
        recipe_of(**data)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["rates.method=uniform"], "no effect with rates.method: uniform; hierarchical alone learns from"),
        (["training.target_weight=0"], "no effect with training.target_weight: 0, an unlabelled image counts"),
        (["rates.method=uniform", "evaluation.baselines=[hierarchical]"], None),
        (["training.epochs=0"], None),
    ],
)
def test_where_it_has_no_effect_is_told(overrides, told):
    found = [text for text in settings_without_effect(recipe_of(*overrides)) if text.startswith("data.unlabelled")]
    assert len(found) == (told is not None)
    assert all(told in text for text in found)
