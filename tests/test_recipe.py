import io

import pytest
import yaml

from homing.errors import RecipeError
from homing.rates.rates_writer import RatesWriter
from homing.recipe.idle import _COLUMNS, settings_without_effect
from homing.recipe.reading import parse_recipe, read_recipe, shipped_recipes
from homing.recipe.schema import Recipe
from homing.unpacking import training_settings

SMALL = """\
data:
  source: {path: /pools/everyone}
  target: {path: /pools/ours}
training: {epochs: 1}
"""
RICH = """\
name: "a: b # c — \\u00e9\\n\\0 'd'"
seed: 7
data:
  source:
    - {path: /a, name: one, group_column: camera, limit: 100}
    - {path: /b, label_column: kind, split: train, id_column: key}
  target: {path: /c}
  test: {path: /d}
  truth: {}
model: {backbone: vit_tiny_patch16_224, weights: /w/model.safetensors, image_size: 224, trainable: last_stage}
rates: {method: uniform, guide: {window: 2}}
training: {steps: 5, mixup: 2e-1, augmentation: none, target_weight: 1e1}
evaluation: {baselines: [target_only, oracle]}
"""


@pytest.mark.parametrize("text", [SMALL, RICH, *(path.read_text() for path in shipped_recipes().values())])
def test_a_resolved_recipe_reads_back_as_itself(text):
    recipe = parse_recipe(text)
    again = parse_recipe(recipe.to_yaml())
    assert again == recipe
    assert again.sha256() == recipe.sha256()
    assert again.to_yaml() == recipe.to_yaml()


def test_a_resolved_recipe_names_every_default():
    tree = yaml.safe_load(parse_recipe(SMALL).to_yaml())
    assert list(tree) == list(Recipe.model_fields)
    assert tree["rates"]["guide"] == {"batch_size": None, "refresh_every": 8, "window": 4}


def test_recipes_that_differ_have_different_digests():
    assert parse_recipe(SMALL).sha256() != parse_recipe(SMALL, ["seed=1"]).sha256()


def test_values_never_change():
    with pytest.raises(ValueError, match="frozen"):
        parse_recipe(SMALL).seed = 3


def test_paths_become_absolute_and_variables_are_filled_in(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLS", "/pools")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    recipe = parse_recipe(SMALL, ["data.source.path=$POOLS/x", "data.target.path=~/y", "model.weights=w.pth"])
    assert (recipe.data.sources[0].path, recipe.data.target.path) == ("/pools/x", "/home/me/y")
    assert recipe.model.weights == str(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["training.steps=3", "training.epochs=1"], None),  # the later one replaces the earlier one
        (
            ["training={epochs: 1, steps: 2}"],
            "give one of training.epochs, training.steps and training.minutes, found epochs and steps",
        ),
        (["training={}"], "give one of training.epochs, training.steps and training.minutes, found none of them"),
        (["training.mixup=0.2"], "training.mixup cannot go with rates.method: hierarchical"),
        (["training.mixup=2e-1", "rates.method=instance"], "training.mixup cannot go with rates.method: instance"),
        (["training.mixup=0.2", "rates.method=uniform"], None),
        (["training.mixup='0'"], None),
        (["training.mixup=1", "rates.method=uniform", "model.trainable=head"], "model.trainable: head"),
        (["training.accumulate='64'"], "training.accumulate (64) is larger than training.batch_size (32)"),
        (["training.ema=0.9", "training.average_last=0.5"], "two averages of the same weights"),
        (["training.ema=0.9", "training.average_last=0"], None),
        (["training.batch_norm=train", "training.branches=2"], "statistics of different weights have no useful mean"),
        (["training.batch_norm=train", "training.branches=1"], None),
        (["evaluation.baselines=[oracle]"], "needs data.truth"),
        (["data.source=[]"], "data.source is an empty list"),
    ],
)
def test_settings_that_cannot_go_together_are_told(overrides, told):
    if told is None:
        parse_recipe(SMALL, overrides)
        return
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SMALL, overrides)
    assert told in str(caught.value)
    assert "1 mistake in the recipe" in str(caught.value)


@pytest.mark.parametrize("mistake", ["seed=-1", "model.image_size=big"])
def test_a_conflict_is_told_together_with_other_mistakes(mistake):
    with pytest.raises(RecipeError, match="2 mistakes") as caught:
        parse_recipe(SMALL, ["training.mixup=2e-1", mistake])
    assert "two owners" in str(caught.value)


def test_no_column_of_rates_can_be_a_group():
    assert set(RatesWriter(io.BytesIO()).schema.names) == _COLUMNS


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["rates.method=uniform", "rates.momentum=0.5"], "rates.momentum: no effect with rates.method: uniform"),
        (["model.trainable=head", "training.augmentation.min_scale=0.9"], "training.augmentation: no effect"),
        (["data.test={path: /t}", "evaluation.folds=3"], "evaluation.folds: no effect"),
        (["rates.method=uniform", "rates.apply=weight"], None),
        (["rates.method=probe", "rates.folds=3"], None),
        (["rates.method=probe", "rates.apply=weight"], "rates.apply: no effect with rates.method: probe"),
        (["rates.method=uniform", "evaluation.baselines=[hierarchical]", "rates.folds=3"], None),
        (["evaluation.baselines=[instance]", "rates.momentum=0.5"], None),
        (["model.trainable=head", "training.augmentation=none"], None),
        (["data.source.group_column=source"], "data.source.group_column: no effect, source is a column of rates"),
    ],
)
def test_settings_without_effect_are_told(overrides, told):
    found = settings_without_effect(parse_recipe(SMALL, overrides))
    assert [text[: len(told)] for text in found] == [told] if told else found == []


@pytest.mark.parametrize(
    ("overrides", "share"),
    [
        ([], 0.7),
        (["training.average_last=0.25"], 0.25),
        (["training.ema=0.9"], 0.0),
        (["model.weights=none"], 0.0),  # weights at random have far to go: the first of them are no better than none
        (["model.trainable=all"], 0.7),
        (["model.trainable=all", "model.weights=none"], 0.0),
        (["model.trainable=head"], 0.0),
    ],
)
def test_the_last_weights_of_what_was_pretrained_are_averaged(overrides, share):
    recipe = parse_recipe(SMALL, ["model.weights=pretrained", "model.trainable=last_stage", *overrides])
    assert training_settings(recipe, num_steps=10).average_last == share


def test_every_shipped_recipe_is_valid_and_its_header_says_what_it_does():
    for path in shipped_recipes().values():
        assert read_recipe(path).name
        header = path.read_text().split("\nname:")[0]
        assert all(word in header for word in ("# What:", "# Command:")), path.name


def test_every_key_is_described():
    def undescribed(model, prefix=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from undescribed(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                yield prefix + name

    assert list(undescribed(Recipe)) == []


def test_alignments_and_batch_statistics_exclude_each_other():
    text = "data: {source: {path: a}, target: {path: b}}\ntraining: {epochs: 1, batch_norm: train}\n"
    parse_recipe(text, ["rates.method=hierarchical"])
    with pytest.raises(RecipeError, match=r"training\.batch_norm: train cannot go with rates\.method: instance"):
        parse_recipe(text, ["rates.method=instance"])
