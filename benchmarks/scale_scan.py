"""Scans at size: the store against a bare forward pass over a DataLoader, from nothing and after 1 % changed.

Stages (each is called by name from scale.py, in a process of its own):

    scan      draw ROWS files of 32 px (kept below the cache), list and scan them with a tiny net, from nothing
    bare      the same files through timm's evaluation transform, a DataLoader with as many workers, the same net
    changed   1 % of the files are drawn anew: list and scan again
    loader    images a second of the read-ahead alone, without a net
    look_up   find ROWS rows in a store of as many, by the states of their files

    python benchmarks/scale_scan.py --only scan:200000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from homing.threads import settle_threads

settle_threads(os.environ)

import numpy as np  # noqa: E402 - threads first
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from PIL import Image  # noqa: E402

from homing.features.cache import FeatureCache  # noqa: E402
from homing.features.forward import feature_width  # noqa: E402
from homing.features.key import feature_facts  # noqa: E402
from homing.features.scan import scan  # noqa: E402
from homing.features.shards import Kind  # noqa: E402
from homing.features.store import Store  # noqa: E402
from homing.memory import peak_rss_mb  # noqa: E402
from homing.models.backbone import build_model  # noqa: E402
from homing.models.inputs import ImageInputs, batches_of  # noqa: E402
from homing.pools.images import Images  # noqa: E402
from homing.pools.reading import read_pool  # noqa: E402
from homing.recipe.schema import PoolSpec  # noqa: E402
from homing.threads import usable_cores  # noqa: E402

SIDE, CLASSES, BATCH = 32, 20, 64
NET = "test_resnet"


def drawn(folder: Path, rows: int) -> Path:
    """`rows` JPEG files of 32 px in classes, no two alike; drawn once."""
    root = folder / f"files-{rows}"
    if (root / "done").exists():
        return root / "pool"
    generator = np.random.default_rng(0)
    for row in range(rows):
        path = root / "pool" / f"{row % CLASSES:02d}" / f"{row:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(path, generator)
    (root / "done").touch()
    return root / "pool"


def _draw(path: Path, generator: np.random.Generator) -> None:
    coarse = generator.integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(path, quality=85)


def _model() -> Any:
    model, preprocessing, _ = build_model(NET, "none", num_classes=CLASSES, image_size=SIDE, seed=0)
    return model.to(memory_format=torch.channels_last).eval(), preprocessing


def _scan(root: Path, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    model, preprocessing = _model()
    pool = read_pool(PoolSpec(path=str(root)))
    listed = time.monotonic() - started
    images = Images(pool.store, pool.rows, pool.ids, canvas=preprocessing.canvas, cache_gb=0.0, workers=None)
    pictures = ImageInputs(images, preprocessing, None, seed=0, device=torch.device("cpu"))
    width = feature_width(model, preprocessing, pictures.device)
    facts = feature_facts(model, preprocessing, precision="fp32", max_pixels=64_000_000)
    with FeatureCache(folder / "store", 10**12).open(facts, (width,)) as store:
        found = scan(pictures, np.arange(len(images)), store, Accelerator(cpu=True), model=model, batch_size=BATCH)
    images.close()
    return {"width": width, "passed": found.num_passed, "listed": listed, "seconds": time.monotonic() - started}


def stage_scan(folder: Path, rows: int) -> dict[str, Any]:
    root = drawn(folder, rows)
    shutil.rmtree(folder / "store", ignore_errors=True)
    return _scan(root, folder)


def stage_changed(folder: Path, rows: int) -> dict[str, Any]:
    root, generator = drawn(folder, rows), np.random.default_rng(time.time_ns())
    if not (folder / "store").exists():
        _scan(root, folder)
    for row in range(0, rows, 100):
        _draw(root / f"{row % CLASSES:02d}" / f"{row:08d}.jpg", generator)
    return _scan(root, folder)


class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What a user would write: a path, Pillow, timm's evaluation transform."""

    def __init__(self, root: Path, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths = sorted(str(path) for path in root.rglob("*.jpg"))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


def _bare_loader(root: Path, preprocessing: Any) -> Any:
    from timm.data import create_transform

    config = preprocessing.data_config()
    names = ("input_size", "interpolation", "mean", "std", "crop_pct")
    transform = create_transform(**{name: config[name] for name in names}, is_training=False)
    return torch.utils.data.DataLoader(Files(root, transform), BATCH, num_workers=usable_cores())


def stage_bare(folder: Path, rows: int) -> dict[str, Any]:
    root = drawn(folder, rows)
    started = time.monotonic()
    model, preprocessing = _model()
    with torch.inference_mode():
        for images in _bare_loader(root, preprocessing):
            model.forward_head(
                model.forward_features(images.contiguous(memory_format=torch.channels_last)), pre_logits=True
            )
    return {"seconds": time.monotonic() - started}


def stage_loader(folder: Path, rows: int) -> dict[str, Any]:
    root = drawn(folder, rows)
    _, preprocessing = _model()
    started = time.monotonic()
    for _ in _bare_loader(root, preprocessing):
        pass
    bare = time.monotonic() - started
    pool = read_pool(PoolSpec(path=str(root)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=preprocessing.canvas, cache_gb=0.0, workers=None)
    pictures = ImageInputs(images, preprocessing, None, seed=0, device=torch.device("cpu"))
    started = time.monotonic()
    for _ in pictures.evaluating(batches_of(np.arange(len(images)), BATCH)):
        pass
    seconds = time.monotonic() - started
    images.close()
    return {"seconds": seconds, "bare_loader_seconds": bare, "workers": usable_cores()}


def stage_look_up(folder: Path, rows: int) -> dict[str, Any]:
    place = folder / "look_up"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    generator = np.random.default_rng(0)
    states = generator.integers(0, 256, (rows, 16), np.uint8)
    with Store(place, Kind("benchmark", (0,), "float32")) as store:
        for start in range(0, rows, store.rows_per_shard):
            some = states[start : start + store.rows_per_shard]
            digests = generator.integers(0, 256, (len(some), 32), np.uint8)
            with store.writer() as shard:
                shard.add(some, digests, np.empty((len(some), 0), np.float32), np.ones(len(some), np.bool_), {})
        before, started, busy = peak_rss_mb(), time.monotonic(), time.process_time()
        found = store.look_up(states)
        seconds, busy = time.monotonic() - started, time.process_time() - busy
    assert not len(found.missing())
    shutil.rmtree(place)
    return {"seconds": seconds, "peak_rss_mb_before": before, "cpu_seconds": busy}


STAGES = {
    "scan": (stage_scan, 200_000),
    "bare": (stage_bare, 200_000),
    "changed": (stage_changed, 200_000),
    "loader": (stage_loader, 200_000),
    "look_up": (stage_look_up, 10_000_000),
}


def measure(name: str, folder: Path, rows: int | None = None) -> dict[str, Any]:
    """A row of the benchmark; call it in a process of its own, for its peak memory is the process's."""
    stage, default = STAGES[name]
    rows = rows or default
    found = stage(folder, rows)
    row = {"rows": rows, "classes": CLASSES, "width": 0, "stage": name} | found
    return row | {"peak_rss_mb": peak_rss_mb(), "rows_per_second": rows / max(found["seconds"], 1e-9)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", required=True, help="STAGE[:ROWS]")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/homing-scale"), help="where files are drawn")
    parsed = parser.parse_args()
    stage, _, count = parsed.only.partition(":")
    json.dump(measure(stage, parsed.cache, int(count) if count else None), sys.stdout)
    print()
