"""Colours of an embedded profile made sRGB, which is what backbones were trained on."""

from __future__ import annotations

import hashlib
import io
import threading
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_LONGEST_PROFILE = 4 * 2**20  # bytes; profiles of presses have some two million
_KEPT = 32
_SAME = 2  # of 255: a profile that moves no colour by more is sRGB under another name
_lock = threading.Lock()
_known: dict[tuple[bytes, str], Any] = {}


def to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns pixels of a mode under an embedded profile into sRGB.

    Args:
        profile: An ICC profile as it stands in a picture.
        mode: RGB, L or CMYK; others have none.

    Returns:
        The transform into RGB; None where the profile is sRGB in all but name, is broken, or is of another mode.
    """
    if not profile or mode not in ("RGB", "L", "CMYK") or len(profile) > _LONGEST_PROFILE:
        return None
    key = hashlib.sha1(profile, usedforsecurity=False).digest(), mode
    if key not in _known:
        transform = _transform(profile, mode)
        with _lock:
            while len(_known) >= _KEPT:
                _known.pop(next(iter(_known)))
            _known[key] = transform
    return _known.get(key)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(theirs, ImageCms.createProfile("sRGB"), mode, "RGB")
        probe = _probe(mode)
        moved = np.asarray(ImageCms.applyTransform(probe, transform), np.int16) - np.asarray(
            probe.convert("RGB"), np.int16
        )
    except MemoryError:
        raise
    except Exception:  # a profile is an ornament: a broken one leaves the numbers as they are
        return None
    return transform if mode == "CMYK" or np.abs(moved).max() > _SAME else None


def _probe(mode: str) -> Image.Image:
    """Colours over the whole range: 9 levels of each of three channels, or 256 greys."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    image = Image.fromarray(grid)
    return image.convert(mode) if mode == "CMYK" else image
