"""Encoded image → canvas: one decoding for training, evaluation and prediction.

The canvas is what timm's evaluation transform sees before its centre crop: the picture upright (EXIF), RGB, its
shorter side resized to `canvas` pixels, the middle square kept. Training crops from it, evaluation takes its centre.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from homing.errors import DataError

ImageFile.LOAD_TRUNCATED_IMAGES = False
_LONGEST = 8  # the longer side that is resized, in units of the shorter one; the canvas is its middle
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(
    data: bytes, canvas: int, interpolation: str = "bicubic", max_pixels: int = 64_000_000
) -> npt.NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: The bytes of an image file.
        canvas: Side of the square returned, pixels.
        interpolation: bicubic, bilinear, nearest or lanczos.
        max_pixels: A picture with more is refused before its pixels are read.

    Returns:
        uint8 [canvas, canvas, 3].

    Raises:
        DataError: Not an image, truncated, empty or too large; says which.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"{width} x {height} pixels, more than data.max_pixels ({max_pixels:,})")
            image.draft("RGB", (canvas, canvas))  # a JPEG is decoded at the smallest scale that suffices
            return _to_canvas(_upright_rgb(image), canvas, _RESAMPLING.get(interpolation, Image.Resampling.BICUBIC))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError("far more pixels than a picture has (a decompression bomb?)") from None
    except UnidentifiedImageError as error:
        kind = "of no image format" if data else "an empty file"
        raise DataError(f"not a readable image: {kind}") from error
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise DataError(f"not a readable image: {str(error) or type(error).__name__}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing of the pixels: as stored, then
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.float32)
        return Image.fromarray(np.clip(wide / 257.0, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_canvas(image: Image.Image, canvas: int, resampling: Image.Resampling) -> npt.NDArray[np.uint8]:
    short = min(image.size)
    if max(image.size) > _LONGEST * short:  # a strip: without its ends, or one of 1 x 1,000,000 grows beyond memory
        image = _middle(image, min(image.width, _LONGEST * short), min(image.height, _LONGEST * short))
    size = (image.width * canvas // short, image.height * canvas // short)
    if size != image.size:
        image = image.resize(size, resampling)
    return np.asarray(_middle(image, canvas, canvas), dtype=np.uint8)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
