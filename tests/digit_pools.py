"""Image folders of printed and handwritten digits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def save_digits(folder: Path, digits: Iterable[tuple[np.ndarray, object]]) -> None:
    """Pictures `<label>/<number>.png` of (ink 0 to 1 [8, 8], label); directly in the folder for the label ""."""
    for number, (ink, label) in enumerate(digits):
        path = folder / str(label) / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * (1 - ink)).astype(np.uint8)).resize((32, 32)).save(path)
