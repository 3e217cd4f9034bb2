"""Values of a recipe: texts as they are typed, decimal numbers, nothing that only YAML 1.1 would make of them."""

import pytest

from homing.errors import RecipeError
from homing.recipe.reading import parse_recipe

SMALL = "data: {source: {path: /a}, target: {path: /b}}\ntraining: {epochs: 1}\n"


def message_of(text, overrides=()) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("name: 007", "007"),
        ("name: 1.10", "1.10"),
        ("name: no", "no"),
        ("name: 2024-01-01", "2024-01-01"),
        ("name: 0x1f", "0x1f"),
        ("name: '7'", "7"),
        ("name: =", "="),
    ],
)
def test_texts_of_a_recipe_are_taken_as_they_are_typed(line, read):
    recipe = parse_recipe(f"{SMALL}{line}")
    assert recipe.name == read
    assert parse_recipe(recipe.to_yaml()) == recipe


def test_paths_and_columns_may_look_like_numbers_or_switches():
    recipe = parse_recipe(
        "data: {source: {path: 010, label_column: yes}, target: {a: {path: 1e3, split: 2024-01-01}}}\n"
        "training: {epochs: 1}"
    )
    assert (recipe.data.source.path[-4:], recipe.data.source.label_column) == ("/010", "yes")
    assert (recipe.data.target["a"].path[-4:], recipe.data.target["a"].split) == ("/1e3", "2024-01-01")
    assert parse_recipe(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("1_000", 1_000), ("1e3", 1_000), ("0x10", 16), ("+7", 7)])
def test_numbers_are_decimal(text, number):
    assert parse_recipe(SMALL.replace("epochs: 1", f"steps: {text}")).training.steps == number
    assert parse_recipe(SMALL, [f"training.steps={text}"]).training.steps == number


@pytest.mark.parametrize("text", ["1:30", "yes", "true", "on", "2024-01-01", "0o10", "!!bool x", "!!float ''"])
def test_what_is_no_number_is_not_taken_for_one(text):
    assert ": " in message_of(SMALL.replace("epochs: 1", f"steps: {text}"))
    assert "\n" not in message_of(SMALL, [f"seed={text}"]).replace("\n  ", "")


@pytest.mark.parametrize("text", ["!!timestamp x", "!!int x", "!!set {a}", "!!pairs [a: 1]", "{<<: {seed: 3}}"])
def test_what_is_no_plain_value_is_refused(text):
    message_of(f"{SMALL}rates: {text}")
