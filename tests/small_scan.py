"""Scans of small drawn pools with a tiny model, in this process or in one of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from homing.features.cache import FeatureCache
from homing.features.forward import feature_width
from homing.features.key import canvas_facts, feature_facts
from homing.features.scan import Scan, scan, scan_part
from homing.features.store import Store
from homing.models.backbone import build_model
from homing.models.inputs import ImageInputs
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec


@dataclass
class SmallScan:
    """A pool, a model and a cache. Everything is opened anew for each scan, as another run would."""

    root: Path
    folder: Path
    backbone: str = "test_resnet"
    rows_per_shard: int = 16
    max_bytes: int = 10**9
    workers: int = 2
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self.model, self.preprocessing, _ = build_model(self.backbone, "none", num_classes=3, image_size=32, seed=0)
        self.cache = FeatureCache(self.folder, self.max_bytes)

    def pictures(self) -> ImageInputs:
        pool = read_pool(PoolSpec(path=str(self.root)))
        settings: dict[str, Any] = {"canvas": self.preprocessing.canvas, "workers": self.workers, "cache_gb": 0.0}
        images = Images(pool.store, pool.rows, pool.ids, **settings)
        return ImageInputs(images, self.preprocessing, None, seed=0, device=torch.device("cpu"))

    def open(self) -> Store:
        width = feature_width(self.model, self.preprocessing, torch.device("cpu"))
        facts = feature_facts(self.model, self.preprocessing, precision="fp32", max_pixels=64_000_000)
        return self.cache.open(facts, (width,), self.dtype, rows_per_shard=self.rows_per_shard)

    def open_canvases(self) -> Store:
        side = self.preprocessing.canvas
        facts = canvas_facts(self.preprocessing, max_pixels=64_000_000)
        return self.cache.open(facts, (side, side, 3), "uint8", rows_per_shard=self.rows_per_shard)

    def open_goodness(self) -> Store:
        return self.cache.open(canvas_facts(self.preprocessing, max_pixels=64_000_000), (0,))

    def scan(self, pictures: ImageInputs | None = None, **settings: Any) -> tuple[Scan, torch.Tensor]:
        """What a scan finds, and all features."""
        pictures = pictures or self.pictures()
        rows = np.arange(len(pictures.images))
        with self.open() as store:
            settings = {"model": self.model, "batch_size": 8} | settings
            found = scan(pictures, rows, store, Accelerator(cpu=True), **settings)
            features = found.features.tensor()
        pictures.images.close()
        return found, features

    def scan_part(self, number: int, count: int) -> int:
        pictures = self.pictures()
        rows = np.arange(len(pictures.images))
        with self.open() as store:
            passed = scan_part(pictures, rows, store, part=(number, count), model=self.model, batch_size=8)
        pictures.images.close()
        return passed

    def wanted(self) -> torch.Tensor:
        """Features of all pictures, the model called on all of them at once, with no store."""
        pictures = self.pictures()
        self.model.eval()
        with torch.inference_mode():
            images = next(pictures.evaluating([np.arange(len(pictures.images))]))
            model: Any = self.model
            return model.forward_head(model.forward_features(images), pre_logits=True).clone()


def scan_and_save(root: Path, folder: Path, where: Path, settings: dict[str, Any] | None = None) -> None:
    """In a process of its own: scan, and leave the features and the bad images' names in a file."""
    torch.set_num_threads(1)
    small = SmallScan(root, folder, **(settings or {}))
    found, features = small.scan()
    result = {
        "features": features,
        "bad": [(item.row, item.name, item.reason) for item in found.bad],
        "passed": found.num_passed,
        "digests": torch.from_numpy(found.digests),
    }
    torch.save(result, where.with_name(f"{where.name}-{os.environ.get('RANK', '0')}"))
