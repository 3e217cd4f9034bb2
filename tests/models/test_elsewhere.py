"""Backbones of the Hugging Face hub and of folders: names with hf-hub: and local-dir:."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from homing.errors import DataError, RecipeError
from homing.models.backbone import architecture_of, build_model
from homing.models.saved import open_model
from homing.outputs.scorer_folder import open_scorer
from homing.recipe.reading import parse_recipe

SIZES = {"num_classes": 5, "image_size": 32, "seed": 0}


@pytest.fixture
def hub(finished_run, tmp_path, monkeypatch):
    """A cache of the hub that holds one model, as a download leaves it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    kept = tmp_path / "models--me--mine"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    shutil.copytree(finished_run / "model", kept / "snapshots" / commit)
    return tmp_path


def test_weights_out_of_the_hubs_cache_and_of_a_folder_are_the_same(finished_run, hub, monkeypatch):
    saved = load_file(finished_run / "model" / "model.safetensors")
    monkeypatch.setattr("timm.models._hub.hf_hub_download", _from(hub))  # else it looks where it was told at import
    for name in ("hf-hub:me/mine", "hf_hub:me/mine", f"local-dir:{finished_run / 'model'}"):
        model, preprocessing, arguments = build_model(name, "pretrained", **SIZES)
        own = model.state_dict()
        assert all(torch.equal(own[key], value) for key, value in saved.items() if own[key].shape == value.shape)
        assert model.get_classifier().out_features == 5
        assert preprocessing.size == 32
        architecture = architecture_of(model, name)
        assert architecture == "test_resnet"
        again, *_ = build_model(architecture, "none", **SIZES, model_args=arguments)
        again.load_state_dict(own)


def _from(hub):
    from huggingface_hub import hf_hub_download

    return lambda *parts, **how: hf_hub_download(*parts, **(how | {"cache_dir": str(hub), "local_files_only": True}))


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "local-dir:/nowhere"])
def test_what_cannot_be_had_is_one_sentence(name):
    with pytest.raises(DataError, match=f"model.backbone: {name} cannot be had") as caught:
        build_model(name, "pretrained", **SIZES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "told"), [("me/mine", "hf-hub:me/mine"), ("zoo:resnet18", "valid sources: hf-hub")])
def test_a_name_that_timm_would_not_take_says_how_to_write_it(name, told):
    with pytest.raises(RecipeError, match=told):
        build_model(name, "pretrained", **SIZES)


def test_the_folder_of_a_backbone_is_kept_as_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = "data: {source: {path: a}, target: {path: b}}\nmodel: {backbone: 'local-dir:mine'}\ntraining: {steps: 1}"
    assert parse_recipe(text).model.backbone == f"local-dir:{Path.cwd() / 'mine'}"


def test_a_run_on_a_folders_backbone_keeps_a_scorer_and_a_model_of_its_own(finished_run, tmp_path):
    from homing.flow import run
    from small_run import small_recipe

    shutil.copytree(finished_run / "model", tmp_path / "mine")
    changes = [f"model.backbone=local-dir:{tmp_path / 'mine'}", "model.weights=pretrained", "training.steps=1"]
    folder = run(small_recipe(finished_run.parent, *changes), tmp_path / "run", quiet=True).folder
    shutil.rmtree(tmp_path / "mine")
    assert open_scorer(folder / "scorer").classes == ("bar", "disk", "ring")
    assert open_model(folder / "model").classes == ("bar", "disk", "ring")
    assert json.loads((folder / "model" / "config.json").read_text())["architecture"] == "test_resnet"
