"""Small pools of drawn pictures that show several shapes, or none: a source of two looks, a target, a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image
from pyarrow import parquet

from drawn_pools import encoded
from homing.recipe.reading import parse_recipe
from homing.recipe.schema import Recipe
from small_run import CLASSES, draw


def draw_set(shapes: list[str], generator: np.random.Generator, *, dark: bool) -> Image.Image:
    """One picture of four places; shapes lie in as many of them, noise in the others."""
    places = generator.permutation([*shapes, *[""] * (4 - len(shapes))])
    whole = Image.new("RGB", (32, 32), "white" if dark else "black")
    for number, shape in enumerate(places):
        if shape:
            whole.paste(draw(shape, generator, dark=dark, side=16), (16 * (number % 2), 16 * (number // 2)))
    grains = np.asarray(whole, np.int16) + generator.integers(-20, 20, (32, 32, 1))
    return Image.fromarray(np.clip(grains, 0, 255).astype(np.uint8))


def sets_of(count: int, seed: int) -> list[list[str]]:
    """Which shapes each picture shows: any number of the three, none among them."""
    generator = np.random.default_rng(seed)
    return [[name for name in CLASSES if generator.random() < 0.45] for _ in range(count)]


def draw_rows(count: int, seed: int, share_dark: float) -> list[dict]:
    """Encoded pictures with their sets."""
    generator, rows = np.random.default_rng(seed), []
    for number, shapes in enumerate(sets_of(count, seed)):
        data = encoded(draw_set(shapes, generator, dark=number < share_dark * count))
        rows.append({"id": f"{seed}-{number}", "image": data, "label": shapes})
    return rows


def draw_set_problem(folder: Path) -> Path:
    """`source.parquet` with a list column, `target` with columns of 0 and 1, `test` with `a|b`; returns the folder."""
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.list_(pa.string()))])
    parquet.write_table(pa.Table.from_pylist(draw_rows(60, 1, 0.2), schema), folder / "source.parquet")
    for role, count, seed in (("target", 20, 2), ("test", 24, 3)):
        (folder / role).mkdir(parents=True)
        lines = [",".join(("file_name", *CLASSES)) if role == "target" else "file_name,label"]
        for row in draw_rows(count, seed, 1):
            (folder / role / f"{row['id']}.png").write_bytes(row["image"])
            flags, cell = [str(int(name in row["label"])) for name in CLASSES], "|".join(row["label"]) or "[]"
            lines.append(",".join([f"{row['id']}.png", *(flags if role == "target" else [cell])]))
        (folder / role / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def set_recipe(folder: Path, *overrides: str) -> Recipe:
    """A recipe over `draw_set_problem(folder)`: a tiny model without weights, a few steps."""
    tree = {
        "name": "several",
        "task": "multi_label",
        "data": {
            "source": {"path": str(folder / "source.parquet"), "id_column": "id"},
            "target": {"path": str(folder / "target"), "label_columns": list(CLASSES)},
            "test": {"path": str(folder / "test")},
        },
        "model": {"backbone": "test_resnet", "weights": "none", "image_size": 32},
        "rates": {"folds": 2},
        "training": {"steps": 10, "batch_size": 8, "workers": 0},
        "output": {"checkpoint_every": 4, "log_every": 3},
    }
    return parse_recipe(yaml.safe_dump(tree), overrides)
