"""Encoded image → canvas: one decoding for training, evaluation and prediction.

The canvas is what timm's evaluation transform sees before its centre crop: the picture upright (EXIF), RGB, its
shorter side resized to `canvas` pixels, the middle square kept. Training crops from it, evaluation takes its centre.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from homing.errors import DataError

ImageFile.LOAD_TRUNCATED_IMAGES = False
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
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
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
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        kind = "empty file" if not data else str(error) or type(error).__name__
        raise DataError(f"not a readable image: {kind}".replace(" <_io.BytesIO", " <")) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.float32)
        return Image.fromarray(np.clip(wide / 257.0, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_canvas(image: Image.Image, canvas: int, resampling: Image.Resampling) -> npt.NDArray[np.uint8]:
    width, height = image.size
    scale = canvas / min(width, height)
    size = (max(canvas, int(width * scale)), max(canvas, int(height * scale)))
    if size != image.size:
        image = image.resize(size, resampling)
    left, top = round((size[0] - canvas) / 2), round((size[1] - canvas) / 2)
    return np.asarray(image.crop((left, top, left + canvas, top + canvas)), dtype=np.uint8)
