"""Encoded pictures → a model's input, from numbers that an exported model carries; torch is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from homing.pools.decoding import decode


def read_description(folder: str | Path) -> dict[str, Any]:
    """What `prepare` needs to know, out of the folder of an exported model."""
    described: dict[str, Any] = json.loads((Path(folder) / "preprocessing.json").read_text(encoding="utf-8"))
    return described


def prepare(pictures: Sequence[bytes | str | Path], described: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Pictures as the model was trained on them.

    Args:
        pictures: Paths of image files, or their bytes.
        described: canvas and size (pixels), interpolation, mean and std (of values in 0 to 1).

    Returns:
        float32 [len(pictures), 3, size, size].

    Raises:
        ValueError: One is no image, is damaged, or is too large.
    """
    canvas, size = int(described["canvas"]), int(described["size"])
    start = round((canvas - size) / 2)
    found = np.empty((len(pictures), size, size, 3), np.uint8)
    for row, picture in enumerate(pictures):
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        whole = decode(data, canvas, str(described["interpolation"]))
        found[row] = whole[start : start + size, start : start + size]
    mean, std = np.float32(described["mean"]), np.float32(described["std"])
    scaled = (found.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
