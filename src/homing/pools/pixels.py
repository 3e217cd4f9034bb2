"""Pixels of any mode as grey or RGB, a strip at a time: what is held in between never grows with the picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

_STRIP = 1_000_000  # pixels that are converted at a time


def mode_of_colours(image: Image.Image) -> str:
    """The mode that an embedded profile speaks of."""
    if image.mode in ("CMYK", "L"):
        return image.mode
    if image.mode in ("LA", "1") or image.mode.startswith(("I", "F")):
        return "L"
    return "RGB" if image.mode in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "YCbCr") else ""


def in_strips(
    image: Image.Image, area: tuple[int, int, int, int], factor: int, cmyk: ImageCms.ImageCmsTransform | None
) -> Image.Image:
    """An area of an image as L or RGB, reduced by a factor; no more than a strip of it is held in between."""
    left, top, right, bottom = area
    whole = area == (0, 0, *image.size)
    if whole and factor == 1 and image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    numbers = _range_of(image) if image.mode == "F" else 0.0
    rows = max(1, _STRIP // ((right - left) * factor)) * factor
    found: Image.Image | None = None
    for start in range(top, bottom, rows):
        strip = image if whole and rows >= bottom else image.crop((left, start, right, min(start + rows, bottom)))
        plain = _plain(strip, numbers, cmyk)
        plain = plain.reduce(factor) if factor > 1 else plain
        if rows >= bottom - top:
            return plain
        if found is None:
            found = Image.new(plain.mode, (plain.width, -(-(bottom - top) // factor)))
        found.paste(plain, (0, (start - top) // factor))
    assert found is not None
    return found


def _plain(image: Image.Image, largest: float, cmyk: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """Pixels as L or RGB, on white where they are transparent; `largest` is the largest number of a float image."""
    if image.mode == "I" or image.mode.startswith("I;16"):  # what 16 bits hold, whatever the type could
        return Image.fromarray((np.clip(np.asarray(image), 0, 65_535) // 257).astype(np.uint8))
    if image.mode == "F":
        scale = 255.0 if largest <= 1 else 1.0 if largest <= 255 else 255 / 65_535
        numbers = np.nan_to_num(np.asarray(image), nan=0, posinf=largest, neginf=0)
        return Image.fromarray((numbers.clip(0, largest) * scale).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if cmyk is not None:
        return ImageCms.applyTransform(image, cmyk) or image
    return image.convert("L" if image.mode in ("L", "1") else "RGB")


def _range_of(image: Image.Image) -> float:
    """The largest finite number of a float image."""
    rows = max(1, _STRIP // image.width)
    largest = 0.0
    for start in range(0, image.height, rows):
        numbers = np.asarray(image.crop((0, start, image.width, min(start + rows, image.height))))
        largest = max(largest, float(np.max(numbers, initial=0.0, where=np.isfinite(numbers))))
    return largest
