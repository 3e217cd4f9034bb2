"""Which kinds of pictures are read: a list of our own, so that no decoder that starts a program is ever asked.

Pillow by itself also takes EPS (which runs Ghostscript), PDF, WMF and a dozen rarities, whatever a file is called.
"""

from __future__ import annotations

import io
import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from itertools import islice

from PIL import Image, ImageFile, UnidentifiedImageError, features

from homing.errors import DataError
from homing.pools.lost_pixels import lost_pixels

# what Pillow says of damaged metadata, tag by tag, is no word on the pixels, and fills a terminal
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")

# format of Pillow: (what this Pillow must be built with; None for nothing, suffixes of its files)
_KNOWN: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "JPEG": ("jpg", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),  # MPO is opened as JPEG
    "PNG": ("zlib", (".png", ".apng")),
    "WEBP": ("webp", (".webp",)),
    "BMP": (None, (".bmp",)),
    "DIB": (None, (".dib",)),
    "GIF": (None, (".gif",)),
    "TIFF": (None, (".tif", ".tiff")),
    "PPM": (None, (".ppm", ".pgm", ".pbm", ".pnm")),
    "JPEG2000": ("jpg_2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc")),
    "AVIF": ("avif", (".avif",)),
    "HEIF": ("pillow_heif", (".heic", ".heif", ".hif")),
}
_MOST_PARTS = 10_000  # segments or chunks before the pixels: pictures have some twenty, a depth map some hundred
_MOST_JUNK = 65_536  # bytes of a header that say nothing
_MOST_EXIF = 1_048_576
_PPM_COMMENT = re.compile(rb"#[^\r\n]*+")
_PPM_NUMBER = re.compile(rb"(?:\s++|#[^\r\n]*+[\r\n])++[^\s#]++")


def _is_here(need: str | None) -> bool:
    if need == "pillow_heif":
        if find_spec(need) is None:
            return False
        try:
            import_module(need).register_heif_opener(thumbnails=False)
        except ImportError:  # built for another system
            return False
        return True
    return need is None or bool(features.check(need))


ALLOWED_FORMATS: tuple[str, ...] = tuple(name for name, (need, _) in _KNOWN.items() if _is_here(need))
"""Pillow's names of the formats that are read here."""
SUFFIXES = frozenset(suffix for name in ALLOWED_FORMATS for suffix in _KNOWN[name][1])
"""What their files end in: small letters, with the dot."""


def open_allowed(data: bytes) -> ImageFile.ImageFile:
    """Open an encoded picture of an allowed format; its pixels are not read yet.

    Raises:
        DataError: It is of none of them, or its header holds far more than a picture's.
        OSError, ValueError: Pillow cannot make sense of it.
    """
    _check_header(data)
    try:
        return Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
    except UnidentifiedImageError:
        kind = "of no image format" if data else "an empty file"
        raise DataError(f"not a readable image: {kind}{_other_kind(data)}") from None


def _other_kind(data: bytes) -> str:
    for start, kind in ((b"%!PS", "PostScript"), (b"\xc5\xd0\xd3\xc6", "PostScript"), (b"%PDF", "PDF")):
        if data.startswith(start):
            return f" ({kind})"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return " (HEIC: pip install 'homing[heic]')"
    return ""


def format_of(data: bytes) -> str:
    """Pillow's name of the format of an encoded picture, one of `ALLOWED_FORMATS` or MPO.

    Raises:
        DataError: It is of none of them.
    """
    try:
        with open_allowed(data) as image:
            return str(image.format)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise DataError(f"not a readable image: {str(error) or type(error).__name__}") from error


# ---- headers that take minutes -------------------------------------------------------------------------------------


def _check_header(data: bytes) -> None:
    """Refuse headers over which Pillow's readers, which walk them in Python, would spend minutes, and lost pixels."""
    if data.startswith(b"\xff\xd8"):
        wrong = _odd_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        wrong = _odd_png(data)
    elif data[:1] == b"P" and data[1:2].isalnum():
        wrong = _odd_ppm(data)
    else:
        wrong = ""
    if wrong:
        raise DataError(f"not a readable image: its header holds {wrong}, far more than a picture's")
    if data.startswith(b"\xff\xd8") and (lost := lost_pixels(data)):
        raise DataError(f"not a readable image: {lost}")


def _odd_jpeg(data: bytes) -> str:
    at, parts, exif, junk = 2, 0, 0, 0
    while 0 <= at < len(data) - 3:
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            after = data.find(b"\xff", at + 1)
            if (junk := junk + after - at) > _MOST_JUNK:
                return f"{junk:,} bytes of nothing"
            at = after
            continue
        marker = data[at + 1]
        if marker in (0xDA, 0xD9):  # pixels begin, or the file ends
            break
        at += 2
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no length
            length = 0
        else:
            length = int.from_bytes(data[at : at + 2], "big")
        if marker == 0xE1 and data[at + 2 : at + 6] == b"Exif":
            exif += length
        at, parts = at + length, parts + 1
        if parts > _MOST_PARTS:
            return f"more than {_MOST_PARTS:,} segments"
        if exif > _MOST_EXIF:
            return f"more than {_MOST_EXIF:,} bytes of EXIF"
    return ""


def _odd_png(data: bytes) -> str:
    at, parts = 8, 0
    while at < len(data) - 8:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        parts += kind != b"IDAT" or length < 64  # pixels may come in any number of pieces, but not in crumbs
        if parts > _MOST_PARTS:
            return f"more than {_MOST_PARTS:,} chunks"
        at += 12 + length
    return ""


def _odd_ppm(data: bytes) -> str:
    kind = data[1:2]
    at = 2
    for _ in range(2 if kind in b"14" else 3):
        found = _PPM_NUMBER.match(data, at, _MOST_JUNK)
        if found is None:
            return f"{_MOST_JUNK:,} bytes before its numbers end" if len(data) > _MOST_JUNK else ""
        at = found.end()
    if kind in b"123" and sum(1 for _ in islice(_PPM_COMMENT.finditer(data), _MOST_PARTS + 1)) > _MOST_PARTS:
        return f"more than {_MOST_PARTS:,} comments"
    return ""
