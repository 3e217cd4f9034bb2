"""Inputs of the backbone's last stage for every image of a collection: scanned once, cached outside the repository.

A bank holds the centre view and a few augmented ones of each image as the frozen trunk leaves them, and the features
of the centre view. The last stage is then fine-tuned in seconds.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from features import COLLECTIONS, IMAGE_SIZE, FeatureBank
from homing.models.backbone import Preprocessing, build_model
from homing.pools.augmentation import CropFlipColor, crop

VIEWS = 4  # beside the centre
SCAN_BATCH = 32
AUGMENTATION = CropFlipColor(min_scale=0.6, horizontal_flip=0.0)  # digits do not stand flips; the same for all


@dataclass(frozen=True)
class ActivationBank(FeatureBank):
    """Features of one collection, and what its last stage sees."""

    activations: Tensor  # [M, 1 + VIEWS, C, H, W] float16, memory-mapped; the first view is the centre


class LastStage(nn.Module):
    """What follows the trunk: the last stage, and all behind it."""

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        parts = copy.deepcopy([model.blocks[-1], model.conv_head, model.bn2, model.global_pool])
        self.stage, self.conv_head, self.bn2, self.pool = parts
        self.fc = nn.Linear(model.num_features, num_classes)

    def get_classifier(self) -> nn.Linear:
        """As timm's models have it."""
        return self.fc

    def features(self, activations: Tensor) -> Tensor:
        """[B, D] of [B, C, H, W]."""
        return self.pool(self.bn2(self.conv_head(self.stage(activations))))

    def forward(self, activations: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.fc(self.features(activations))


def backbone() -> tuple[nn.Module, Preprocessing]:
    """The bundled lite0, in evaluation mode."""
    model, preprocessing, _ = build_model(
        "tf_efficientnet_lite0", "bundled", num_classes=2, image_size=IMAGE_SIZE, seed=0
    )
    return model.eval().to(memory_format=torch.channels_last), preprocessing


def load_activations(name: str, cache: Path) -> ActivationBank:
    """The bank called `name`, from the cache or by one scan of its images."""
    path = cache / f"{name}-lite0-{IMAGE_SIZE}-stage.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        torch.save(_scan(name), temporary)
        temporary.rename(path)
    return ActivationBank(**torch.load(path, weights_only=True, mmap=True))


@torch.inference_mode()
def _scan(name: str) -> dict[str, object]:
    model, preprocessing = backbone()
    last = LastStage(model, 2).eval()
    canvases, labels, domains = [], [], []
    for image, label, domain in COLLECTIONS[name]():
        canvases.append(canvas_of(image, preprocessing.canvas))
        labels.append(label)
        domains.append(domain)
    activations, features = [], []
    for start in range(0, len(canvases), SCAN_BATCH):
        rows = np.arange(start, min(start + SCAN_BATCH, len(canvases)))
        pixels = torch.from_numpy(np.stack([canvases[row] for row in rows])).permute(0, 3, 1, 2).float() / 255
        views = [preprocessing.center(pixels)]
        for view in range(VIEWS):
            drawn = torch.from_numpy(AUGMENTATION.draw(0, view, rows, np.zeros_like(rows)))
            views.append(crop(pixels, drawn, preprocessing.size))
        inputs = preprocessing.normalize(torch.cat(views)).contiguous(memory_format=torch.channels_last)
        left = model.blocks[:-1](model.bn1(model.conv_stem(inputs)))
        features.append(last.features(left[: len(rows)]).clone())
        activations.append(left.view(1 + VIEWS, len(rows), *left.shape[1:]).transpose(0, 1).half())
    class_names, domain_names = sorted(set(labels)), sorted(set(domains))
    return {
        "features": torch.cat(features).clone(),
        "activations": torch.cat(activations).clone(),
        "labels": torch.tensor([class_names.index(label) for label in labels]),
        "domains": torch.tensor([domain_names.index(domain) for domain in domains]),
        "class_names": tuple(class_names),
        "domain_names": tuple(domain_names),
    }


def canvas_of(image: Image.Image, side: int) -> np.ndarray:
    """The middle square of an image, uint8 [side, side, 3]."""
    image = image.convert("RGB")
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))
