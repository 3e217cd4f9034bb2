"""Where anything that features depend on changes, other rows are meant."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import homing.features.key as key
from homing.features.key import backbone_digest, canvas_facts, feature_facts, store_key
from homing.models.backbone import build_model
from homing.models.structure import structure_digest


def facts(seed=0, **changes):
    model, preprocessing, _ = build_model("test_resnet", "none", num_classes=3, image_size=32, seed=seed)
    settings = {"precision": "fp32", "max_pixels": 1_000, "device": "cpu"} | changes
    return feature_facts(model, settings.pop("preprocessing", preprocessing), **settings), preprocessing, model


def test_a_key_changes_with_all_that_features_depend_on_and_with_nothing_else(monkeypatch):
    first, preprocessing, model = facts()
    name = store_key(first, (96,), "float32")
    with torch.no_grad():
        model.get_classifier().weight.zero_()  # the head is no part of it
    same = feature_facts(model, preprocessing, precision="fp32", max_pixels=1_000)
    assert store_key(same, (96,), "float32") == name
    others = [
        facts(seed=1)[0],
        facts(precision="bf16")[0],
        facts(max_pixels=2_000)[0],
        facts(device="cuda")[0],
        facts(preprocessing=replace(preprocessing, mean=(0.0, 0.0, 0.0)))[0],
        facts(preprocessing=replace(preprocessing, interpolation="nearest"))[0],
        canvas_facts(preprocessing, max_pixels=1_000),
    ]
    monkeypatch.setattr(key, "DECODING_VERSION", key.DECODING_VERSION + 1)
    others.append(facts()[0])
    monkeypatch.undo()
    monkeypatch.setattr(key, "ALLOWED_FORMATS", tuple(one for one in key.ALLOWED_FORMATS if one != "WEBP"))
    others += [facts()[0], canvas_facts(preprocessing, max_pixels=1_000)]
    names = [name, *(store_key(other, (96,), "float32") for other in others)]
    names += [store_key(first, (96,), "float16"), store_key(first, (97,), "float32")]
    assert len(set(names)) == len(names)


def test_architectures_of_equal_weights_have_keys_of_their_own():
    """They differ in padding and in what norms add to a variance; the number of classes is the head's."""
    first, preprocessing, _ = build_model("efficientnet_lite0", "none", num_classes=3, image_size=64, seed=0)
    body = {name: value for name, value in first.state_dict().items() if not name.startswith("classifier.")}
    names = []
    for backbone, num_classes in (("efficientnet_lite0", 3), ("efficientnet_lite0", 7), ("tf_efficientnet_lite0", 3)):
        model, _, _ = build_model(backbone, "none", num_classes=num_classes, image_size=64, seed=1)
        model.load_state_dict(body, strict=False)
        facts = feature_facts(model, preprocessing, precision="fp32", max_pixels=1_000)
        names.append(store_key(facts, (8,), "float32"))
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("change", [{"act_layer": "gelu"}, {"norm_layer": partial(nn.BatchNorm2d, eps=0.01)}])
def test_settings_without_weights_are_part_of_a_structure(change):
    plain, _, _ = build_model("test_resnet", "none", num_classes=3, image_size=32, seed=0)
    other, _, _ = build_model("test_resnet", "none", num_classes=3, image_size=32, seed=0, model_args=change)
    assert backbone_digest(plain) == backbone_digest(other)
    assert structure_digest(plain) != structure_digest(other)


def test_a_structure_is_the_same_once_a_model_was_used():
    for name in ("test_vit", "test_resnet"):
        model, preprocessing, _ = build_model(name, "none", num_classes=3, image_size=None, seed=0)
        before = structure_digest(model)
        model.train()(torch.zeros(2, 3, preprocessing.size, preprocessing.size))
        assert structure_digest(model.eval()) == before
