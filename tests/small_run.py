"""A small but whole problem on disk: three classes of drawn pictures, two looks, and a recipe over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from homing.recipe.reading import parse_recipe
from homing.recipe.schema import Recipe

CLASSES = ("bar", "disk", "ring")


def draw(shape: str, generator: np.random.Generator, *, dark: bool, side: int = 24) -> Image.Image:
    """One noisy picture of a shape, light on dark or dark on light."""
    y, x = np.mgrid[:side, :side] - side / 2 + generator.uniform(-3, 3, 2)[:, None, None]
    radius = np.hypot(x, y)
    ink = {"bar": abs(x) < 3, "disk": radius < 7, "ring": (radius > 5) & (radius < 8)}[shape].astype(float)
    ink = np.clip(ink + generator.normal(0, 0.15, ink.shape), 0, 1)
    gray = np.round(255 * (1 - ink if dark else ink)).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")


def draw_folder(folder: Path, per_class: int, seed: int, share_dark: float) -> None:
    """An image folder; the first `share_dark` of each class are dark on light."""
    generator = np.random.default_rng(seed)
    for shape in CLASSES:
        (folder / shape).mkdir(parents=True)
        for number in range(per_class):
            draw(shape, generator, dark=number < share_dark * per_class).save(folder / shape / f"{number:03d}.png")


def draw_problem(folder: Path, per_class: int = 14) -> Path:
    """`source` (a fifth of it like the target), `target`, `test`; returns the folder."""
    draw_folder(folder / "source", per_class, seed=1, share_dark=0.2)
    draw_folder(folder / "target", 4, seed=2, share_dark=1)
    draw_folder(folder / "test", 6, seed=3, share_dark=1)
    return folder


def small_recipe(folder: Path, *overrides: str) -> Recipe:
    """A recipe over `draw_problem(folder)`: a tiny model without weights, a few steps."""
    tree = {
        "name": "small",
        "data": {role: {"path": str(folder / role)} for role in ("source", "target", "test")},
        "model": {"backbone": "test_resnet", "weights": "none", "image_size": 32},
        "rates": {"folds": 2},
        "training": {"steps": 12, "batch_size": 8, "workers": 0},
        "output": {"checkpoint_every": 4, "log_every": 3},
    }
    return parse_recipe(yaml.safe_dump(tree), overrides)
