"""Where anything that features depend on changes, other rows are meant."""

from dataclasses import replace

import torch

import homing.features.key as key
from homing.features.key import canvas_facts, feature_facts, store_key
from homing.models.backbone import build_model


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
    names = [name, *(store_key(other, (96,), "float32") for other in others)]
    names += [store_key(first, (96,), "float16"), store_key(first, (97,), "float32")]
    assert len(set(names)) == len(names)
