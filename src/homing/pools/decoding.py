"""Encoded image → canvas: one decoding for training, evaluation, prediction and the report.

The canvas is what timm's evaluation transform sees before its centre crop: the picture upright (EXIF), in sRGB, its
shorter side resized to `canvas` pixels, the middle square kept. Training crops from it, evaluation takes its centre.

A large picture is first made smaller, by a whole factor and never below twice the canvas: a JPEG while it is decoded,
any other strip by strip. What is left is resized from its exact box: docs/decisions/decoding.md has the figures.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile

from homing.errors import DataError
from homing.pools.colour import to_srgb
from homing.pools.decoding_cost import bytes_to_decode, too_many_steps
from homing.pools.formats import ALLOWED_FORMATS, SUFFIXES, format_of, open_allowed
from homing.pools.pixels import in_strips, mode_of_colours

__all__ = ["ALLOWED_FORMATS", "DECODING_VERSION", "SUFFIXES", "decode", "format_of", "is_nearly_constant", "open_rgb"]

DECODING_VERSION = 4
"""Raised whenever the pixels of a canvas may change: what was computed from earlier ones is not taken for the same."""
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow takes memory in blocks of 16 MB, which glibc keeps for the thread that freed them; larger ones it gives back
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
_LONGEST = 8  # the longer side that is resized, in units of the shorter one; the canvas is its middle
_LARGE = 16_000_000  # pixels after decoding: from here a picture is reduced first, and waits for other large ones
_BYTES_PER_PIXEL = 10  # what decoding may take, times max_pixels
_ORIENTATION = 0x0112
_LONGEST_EXIF = 1_048_576
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_Box = tuple[float, float, float, float]  # left, top, right, bottom, pixels


_large = threading.Lock()  # held over a large picture: several at once would take several times the memory


def _free_in_a_fork() -> None:
    global _large  # a thread that held it is not there in a forked process, which would wait for ever
    _large = threading.Lock()


os.register_at_fork(after_in_child=_free_in_a_fork)


@dataclass
class _Picture:
    """A picture as it was decoded: L or RGB, upright.

    Attributes:
        image: Perhaps at a fraction of its size, the last row and column then stand for less than a whole one.
        box: Where in it the picture lies.
        size: Width and height that it has at its full size.
        transform: Into sRGB; still to be applied.
    """

    image: Image.Image
    box: _Box
    size: tuple[int, int]
    transform: ImageCms.ImageCmsTransform | None

    def in_srgb(self, image: Image.Image) -> Image.Image:
        """An image of this picture's pixels in its last colours."""
        if self.transform is not None:
            return ImageCms.applyTransform(image, self.transform) or image
        return image.convert("RGB")


def decode(
    data: bytes, canvas: int, interpolation: str = "bicubic", max_pixels: int = 64_000_000
) -> npt.NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: The bytes of an image file.
        canvas: Side of the square returned, pixels.
        interpolation: bicubic, bilinear, nearest or lanczos.
        max_pixels: A picture with more is refused before its pixels are read, and so is one whose decoding would take
            more than 10 bytes for each of these.

    Returns:
        uint8 [canvas, canvas, 3].

    Raises:
        DataError: Not an image, truncated, empty or too large; says which.
        MemoryError: This machine has too little for it now.
    """
    with _as_data_error():
        picture = _read(data, max_pixels, canvas)
        short = min(picture.size)
        size = (picture.size[0] * canvas // short, picture.size[1] * canvas // short)
        image = picture.image
        if size != image.size or picture.box != (0, 0, *image.size):
            image = image.resize(size, _RESAMPLING.get(interpolation, Image.Resampling.BICUBIC), picture.box)
        return np.asarray(picture.in_srgb(_middle(image, canvas)), dtype=np.uint8)


def open_rgb(data: bytes, max_pixels: int, at_least: int | None = None) -> Image.Image:
    """The picture as a model gets to see it, before it is resized: upright, RGB, in sRGB, on white where transparent.

    Args:
        data: The bytes of an image file.
        max_pixels: As of `decode`.
        at_least: A large picture may be made smaller as long as both sides stay at least twice this; None for no
            reduction.

    Returns:
        In mode RGB. A strip of more than 1 : 8 has lost its ends.

    Raises:
        DataError, MemoryError: As of `decode`.
    """
    with _as_data_error():
        picture = _read(data, max_pixels, at_least)
        return picture.in_srgb(picture.image)


def is_nearly_constant(canvas: npt.NDArray[np.uint8]) -> bool:
    """Whether a canvas is black, white or of one colour as good as throughout: no channel spans 16 of 255 levels.

    Args:
        canvas: uint8 [canvas, canvas, 3].
    """
    darkest, brightest = canvas.min(0).min(0), canvas.max(0).max(0)  # rows first: many times quicker than all pixels
    return int((brightest - darkest).max()) < 16


@contextmanager
def _as_data_error() -> Iterator[None]:
    """Whatever goes wrong in a decoder becomes one sentence; a lack of memory is not the picture's fault."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError("far more pixels than a picture has (a decompression bomb?)") from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        text = (str(error).splitlines() or [""])[0]
        raise DataError(f"not a readable image: {text or type(error).__name__}") from error


def _read(data: bytes, max_pixels: int, at_least: int | None) -> _Picture:
    most = max(_BYTES_PER_PIXEL * max_pixels, 2**24)
    with _told_from_a_lack_of_memory("a picture", most if data[:4] == b"RIFF" else 0):  # WebP takes all it needs here
        image = open_allowed(data)
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"{width} x {height} pixels, more than data.max_pixels ({max_pixels:,})")
    need = bytes_to_decode(image, data, at_least)
    if need > most:
        raise DataError(
            f"{width} x {height} pixels of {image.format}, which takes {need / 1e6:,.0f} MB to decode; at"
            f" data.max_pixels: {max_pixels} it may take {_BYTES_PER_PIXEL * max_pixels / 1e6:,.0f}"
        )
    if why := too_many_steps(image, data):
        raise DataError(f"{width} x {height} pixels of {image.format} {why}")
    with _told_from_a_lack_of_memory(f"{width} x {height} pixels of {image.format}", need):
        if need < _BYTES_PER_PIXEL * _LARGE:
            return _loaded(image, at_least)
        del image
        with _large:  # until the last copy of the picture is gone, too
            return _loaded(open_allowed(data), at_least)


@contextmanager
def _told_from_a_lack_of_memory(what: str, need: int) -> Iterator[None]:
    """Most decoders call it damage where they are given no memory: an error counts as such where there is enough."""
    try:
        yield
    except Exception:
        try:
            np.empty(need, np.uint8)
        except MemoryError:
            raise MemoryError(
                f"there is not enough memory to decode {what}, which takes up to {need / 1e6:,.0f} MB; give the process"
                " more, or set data.max_pixels so low that such pictures are refused"
            ) from None
        raise


def _loaded(image: Image.Image, at_least: int | None) -> _Picture:
    size = image.size
    scaled = image.draft("RGB", (2 * at_least, 2 * at_least)) if at_least else None
    image.load()
    box: _Box
    if scaled is not None:
        box = scaled[1]
    else:  # a TIFF turns itself while it is loaded
        size, box = image.size, (0, 0, *image.size)
    orientation = _orientation(image)
    size, box = _without_ends(size, box)
    left, top, right, bottom = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
    factor = 1
    if at_least and (right - left) * (bottom - top) > _LARGE:
        factor = max(1, int(min(box[2] - box[0], box[3] - box[1])) // (2 * at_least))
    transform = to_srgb(image.info.get("icc_profile"), mode_of_colours(image))
    converted = in_strips(image, (left, top, right, bottom), factor, transform if image.mode == "CMYK" else None)
    box = ((box[0] - left) / factor, (box[1] - top) / factor, (box[2] - left) / factor, (box[3] - top) / factor)
    transform = None if image.mode == "CMYK" else transform
    return _upright(_Picture(converted, box, size, transform), orientation)


def _orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF has it; 1 where a damaged block says nothing of the pixels."""
    exif = image.info.get("exif") or b""  # pillow-heif has None
    if len(exif) > _LONGEST_EXIF or len(image.info.get("Raw profile type exif", "")) > 2 * _LONGEST_EXIF:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:
        return 1


def _without_ends(size: tuple[int, int], box: _Box) -> tuple[tuple[int, int], _Box]:
    """A strip without its ends, or one of 1 x 1,000,000 grows beyond memory."""
    longest = _LONGEST * min(size)
    kept = (min(size[0], longest), min(size[1], longest))
    if kept == size:
        return size, box
    across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    left, top = round((size[0] - kept[0]) / 2) * across, round((size[1] - kept[1]) / 2) * down
    return kept, (left, top, left + kept[0] * across, top + kept[1] * down)


def _upright(picture: _Picture, orientation: int) -> _Picture:
    turn = _TURNS.get(orientation)
    if turn is None:
        return picture
    (width, height), (left, top, right, bottom) = picture.image.size, picture.box
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    box, size = (left, top, right, bottom), picture.size
    if orientation >= 5:  # its sides change places
        box, size = (top, left, bottom, right), (size[1], size[0])
    return _Picture(picture.image.transpose(turn), box, size, picture.transform)


def _middle(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
