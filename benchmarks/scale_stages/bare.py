"""What everything is held against: files through timm's evaluation transform and a DataLoader, and a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

BATCH = 64


class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What a user would write: a path, Pillow, timm's evaluation transform."""

    def __init__(self, paths: list[str], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


def loader(paths: list[str], preprocessing: Any) -> Any:
    """As many workers as there are cores."""
    from timm.data import create_transform

    from homing.threads import usable_cores

    config = preprocessing.data_config()
    names = ("input_size", "interpolation", "mean", "std", "crop_pct")
    transform = create_transform(**{name: config[name] for name in names}, is_training=False)
    return torch.utils.data.DataLoader(Files(paths, transform), BATCH, num_workers=usable_cores())


def model_of(backbone: str, weights: str, classes: int, side: int) -> Any:
    """(model, preprocessing), ready for a forward pass."""
    from homing.models.backbone import build_model

    model, preprocessing, _ = build_model(backbone, weights, num_classes=classes, image_size=side, seed=0)
    return model.to(memory_format=torch.channels_last).eval(), preprocessing


def forward(folder: Path, half: int, backbone: str, weights: str, classes: int, side: int) -> dict[str, float]:
    """What it takes to list all files and pass over every other one, in a process of its own.

    Two halves, one before and one after what is measured, see the same neighbours on a shared machine.
    """
    from scale import stopwatch

    model, preprocessing = model_of(backbone, weights, classes, side)
    watch = stopwatch()
    paths = sorted(str(path) for path in folder.rglob("*.jpg"))[half::2]
    with torch.inference_mode():
        for images in loader(paths, preprocessing):
            features = model.forward_features(images.contiguous(memory_format=torch.channels_last))
            model.forward_head(features, pre_logits=True)
    return watch.read()


def against(found: dict[str, float], halves: list[dict[str, float]]) -> dict[str, float]:
    """A run against both halves of the pass: by the clock, and of the processors, whoever else uses the machine."""
    seconds, spent = (sum(half[name] for half in halves) for name in ("seconds", "cpu_seconds"))
    return {
        "bare_seconds": round(seconds, 2),
        "bare_cpu_seconds": round(spent, 2),
        "to_bare": round(found["seconds"] / seconds, 3),
        "to_bare_cpu": round(found["cpu_seconds"] / spent, 3),
        "scan_to_bare": round(found["scan_seconds"] / seconds, 3),
    }
