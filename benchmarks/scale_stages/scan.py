"""List, scan and rate small files with a tiny net, from nothing and after a change, against a bare forward pass.

scan      from nothing: `seconds` of the whole run (rates and their report too), `scan_seconds` of list and scan
changed   the same again after 1 % of the files were drawn anew
loader    the read-ahead alone, without a net, against a bare DataLoader
look_up   find rows in a store of as many, by the states of their files
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scale import apart, stopwatch

from scale_stages import bare, drawing, timing

SIDE, CLASSES = 32, 20
NET = ("test_resnet", "none")
MODEL = {"backbone": NET[0], "weights": NET[1], "image_size": SIDE}
CASES = [{"stage": stage, "rows": 200_000, "classes": CLASSES} for stage in ("scan", "changed", "loader")]
CASES.append({"stage": "look_up", "rows": 10_000_000, "classes": CLASSES})


def rated(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """A run that ends with its rates."""
    from homing import flow

    recipe = timing.recipe_of(data, folder / "store", model=MODEL, training={"epochs": 0})
    found: dict[str, float] = {}
    timing.clocked(found)
    watch = stopwatch()
    flow.run(recipe, folder / "run", overwrite=True, quiet=True)
    return watch.read() | found


def scan(folder: Path, rows: int, classes: int) -> dict[str, Any]:
    data = drawing.draw_problem(folder, rows, classes, SIDE)
    del data["test"]
    for old in ("store", "run"):
        shutil.rmtree(folder / old, ignore_errors=True)
    passes = [apart(bare.forward, folder / "source", 0, *NET, classes, SIDE)]
    found = rated(folder, data)
    passes.append(apart(bare.forward, folder / "source", 1, *NET, classes, SIDE))
    found |= bare.against(found, passes)
    (folder / "first.json").write_text(json.dumps(found))
    return found


def changed(folder: Path, rows: int, classes: int) -> dict[str, Any]:
    if not (folder / "first.json").exists():
        apart(scan, folder, rows, classes)
    first = json.loads((folder / "first.json").read_text())
    drawing.change(folder / "source", rows, classes, SIDE, every=100)
    data = {role: {"path": str(folder / role)} for role in ("source", "target")}
    found = rated(folder, data)
    return found | {
        "to_first": round(found["seconds"] / first["seconds"], 3),
        "to_first_cpu": round(found["cpu_seconds"] / first["cpu_seconds"], 3),
        "scan_to_first": round(found["scan_seconds"] / first["scan_seconds"], 3),
    }


def loader(folder: Path, rows: int, classes: int) -> dict[str, Any]:
    """In turns over tenths of the files, so that both see the same neighbours."""
    from homing.threads import usable_cores

    drawing.draw_problem(folder, rows, classes, SIDE)
    _, preprocessing = bare.model_of(*NET, classes, SIDE)
    paths = sorted(str(path) for path in (folder / "source").rglob("*.jpg"))
    watch, pairs = stopwatch(), []
    for start in range(10):
        some = paths[start::10]
        started = time.monotonic()
        for _ in bare.loader(some, preprocessing):
            pass
        middle = time.monotonic()
        for _ in read_ahead(folder, np.arange(start, len(paths), 10), preprocessing):
            pass
        pairs.append((middle - started, time.monotonic() - middle))
    seconds, theirs = sum(own for _, own in pairs), sum(other for other, _ in pairs)
    return watch.read() | {
        "seconds": round(seconds, 2),
        "bare_seconds": round(theirs, 2),
        "to_bare": round(statistics.median(own / other for other, own in pairs), 3),
        "workers": usable_cores(),
    }


def read_ahead(folder: Path, rows: np.ndarray, preprocessing: Any) -> Iterator[Any]:
    """Batches of pictures by row, as the scan gets them."""
    import torch

    from homing.models.inputs import ImageInputs, batches_of
    from homing.pools.images import Images
    from homing.pools.reading import read_pool
    from homing.recipe.data import PoolSpec

    pool = read_pool(PoolSpec(path=str(folder / "source")))
    images = Images(pool.store, pool.rows, pool.ids, canvas=preprocessing.canvas, cache_gb=0.0, workers=None)
    pictures = ImageInputs(images, preprocessing, None, seed=0, device=torch.device("cpu"))
    yield from pictures.evaluating(batches_of(rows, bare.BATCH))
    images.close()


def look_up(folder: Path, rows: int, classes: int) -> dict[str, Any]:
    from homing.features.shards import Kind
    from homing.features.store import Store

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
        busy, watch = time.process_time(), stopwatch()
        found = store.look_up(states)
        read, busy = watch.read(), time.process_time() - busy
    assert not len(found.missing())
    shutil.rmtree(place)
    return read | {"cpu_seconds": round(busy, 2)}


def measure(cache: Path, stage: str, rows: int, classes: int, width: int | None = None) -> dict[str, Any]:
    """One of the stages; `width` is the net's own."""
    folder = cache / f"files-{rows}-{classes}"
    folder.mkdir(parents=True, exist_ok=True)
    return {"scan": scan, "changed": changed, "loader": loader, "look_up": look_up}[stage](folder, rows, classes)
