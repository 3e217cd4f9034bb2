"""Small labelled image folders, drawn."""

from __future__ import annotations

import colorsys
import io
from pathlib import Path

import numpy as np
from PIL import Image


def draw_picture(seed: int, number: int = 0, *, size: int = 24, hue: float = 0.6) -> Image.Image:
    """A noisy disk on a coloured ground, no two alike."""
    generator = np.random.default_rng([seed, number])
    y, x = np.mgrid[:size, :size] / size - generator.uniform(0.3, 0.7, 2)[:, None, None]
    ground, ink = (np.array(colorsys.hsv_to_rgb((hue + turn) % 1, 0.6, 0.8)) for turn in (0, 0.5))
    picture = np.where((np.hypot(x, y) < generator.uniform(0.15, 0.35))[..., None], ink, ground)
    picture = picture + generator.normal(0, 0.05, picture.shape)
    return Image.fromarray(np.round(255 * picture.clip(0, 1)).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture as a file of a format holds it."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def draw_pool(root: Path, counts: dict[str, int], *, seed: int = 0, size: int = 24, hue: float = 0.6) -> Path:
    """An image folder with `counts[name]` pictures in the sub-folder of each class; returns `root`.

    Pictures differ between seeds, classes and numbers; `hue` (0 to 1) colours the ground, to tell domains apart.
    """
    for position, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture = draw_picture(seed * 1_000 + position, number, size=size, hue=hue + 0.1 * position)
            picture.save(root / name / f"{number:03d}.png")
    return root
