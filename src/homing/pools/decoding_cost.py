"""What decoding a picture takes, told before its pixels are read: a file of some kilobytes can ask for gigabytes.

Decoders take what a file says of itself at its word: tiles far larger than the picture, a block of the code for every
pixel, thousands of passes over all of them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import ImageFile

_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_MOST_SCANS = 32  # encoders write some ten
_MOST_STEPS = 10**9  # pixels that are gone over in further ones: a second or two
_MOST_RLE = 2**23  # pixels that Pillow's reader of such bitmaps, which is written in Python, takes two seconds for
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_TILE, _COMPONENT, _BLOCK = 8_600, 1_100, 600  # bytes that OpenJPEG 2.5 keeps of each


def bytes_to_decode(image: ImageFile.ImageFile, data: bytes, at_least: int | None) -> int:
    """What the decoder of a picture takes at most, bytes; held by tests/pools/test_decoding_memory.py.

    Args:
        image: Opened, not loaded.
        data: What it was opened from.
        at_least: A JPEG may be made smaller while it is decoded, to twice this; None: it is not.
    """
    pixels, bands = image.width * image.height, len(image.getbands())
    if image.format in ("JPEG", "MPO"):  # a progressive one is held as coefficients of 16 bits, at its full size
        scale = min(8, min(image.size) // (2 * at_least)) if at_least else 1
        return 2 * bands * pixels + 4 * pixels // max(1, scale // 2) ** 2
    if image.format in ("WEBP", "AVIF", "HEIF"):  # two frames, the bytes of one, the image
        return 16 * pixels
    if image.format == "JPEG2000":  # numbers of 32 bits for each channel
        return (4 * bands + 8) * pixels + _bytes_of_code(data)
    if image.format == "TIFF":
        return 8 * max(pixels, _pixels_of_tiles(image))
    return 8 * pixels


def too_many_steps(image: ImageFile.ImageFile, data: bytes) -> str:
    """What makes a picture of so many pixels take far longer than others; nothing where nothing does."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO") and _is_in_scans(image, data):
        scans = sum(marker == 0xDA for marker, _ in _markers(data))
        if scans > _MOST_SCANS and scans * pixels > _MOST_STEPS:
            return f"in {scans:,} scans, far more than a picture has"
    if image.format in ("BMP", "DIB") and image.tile and image.tile[0][0] == "bmp_rle" and pixels > _MOST_RLE:
        return f"in run-length codes, of which {_MOST_RLE:,} pixels are read at most; save it anew without"
    return ""


# ---- JPEG ----------------------------------------------------------------------------------------------------------


def _is_in_scans(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether the pixels of a JPEG come in several passes; most come in one, behind which nothing is read."""
    if image.info.get("progressive"):
        return True
    first = next((start for marker, start in _markers(data) if marker == 0xDA), len(data))
    return data[first + 2 : first + 3] != bytes([getattr(image, "layers", 0)])


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker of each segment of a JPEG and where its length stands, up to the end of the picture, as libjpeg does."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None and (marker := found[0][1]) != 0xD9:
        at = found.end()
        if marker not in (0x01, 0xD8):  # these have no length
            yield marker, at
            at += int.from_bytes(data[at : at + 2], "big")


# ---- TIFF ----------------------------------------------------------------------------------------------------------


def _pixels_of_tiles(image: ImageFile.ImageFile) -> int:
    """What the tiles of a TIFF cover, or 0; a strip is never taken for larger than the picture."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        return 0
    return _rounded_up(image.width, width) * _rounded_up(image.height, height)


def _rounded_up(length: int, step: int) -> int:
    return -(-length // step) * step


# ---- JPEG 2000 -----------------------------------------------------------------------------------------------------


def _bytes_of_code(data: bytes) -> int:
    """What OpenJPEG keeps of the tiles and blocks of a picture, bytes.

    Every segment counts that it might read as one of size or coding, wherever it stands: what comes last is valid.
    """
    codings = list(_codings(data))
    return max((_bytes_of_size(size, codings) for size in _sizes(data)), default=0)


def _bytes_of_size(size: tuple[int, ...], codings: list[tuple[int, int, int, bytes]]) -> int:
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, components = size
    tiles = -(-(right - tiles_left) // tile_width) * -(-(bottom - tiles_top) // tile_height)
    blocks = max((_blocks(right - left, bottom - top, *coding) for coding in codings), default=0)
    return tiles * (_TILE + components * _COMPONENT) + blocks * components * _BLOCK


def _sizes(data: bytes) -> Iterator[tuple[int, ...]]:
    """Right, bottom, left, top, the same of tiles (width and height, left, top), and components of each SIZ segment."""
    for found in re.finditer(rb"\xff\x51", data):
        segment = data[found.end() : found.end() + 38]
        if len(segment) == 38:
            length, _, *values, components = struct.unpack(">HHIIIIIIIIH", segment)
            if length == 38 + 3 * components and values[4] and values[5]:
                yield *values, components


def _codings(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Levels, exponents of a block's sides, and exponents of precincts a level, of each COD and COC segment."""
    for found in re.finditer(rb"\xff[\x52\x53]", data):
        start = found.end()
        flags, first = (start + 2, start + 7) if found[0][1] == 0x52 else (start + 3, start + 4)
        if first + 5 > len(data):
            continue
        levels, across, down = data[first], data[first + 1] + 2, data[first + 2] + 2
        precincts = data[first + 5 : first + 6 + levels] if data[flags] & 1 else b""
        is_valid = levels <= 32 and across <= 10 and down <= 10
        if is_valid and int.from_bytes(data[start : start + 2], "big") == first + 5 + len(precincts) - start:
            yield levels, across, down, precincts or bytes([0xFF]) * (levels + 1)


def _blocks(width: int, height: int, levels: int, across: int, down: int, precincts: bytes) -> int:
    """Blocks of the code of one component, or about; there are no fewer than precincts."""
    count = 0
    for level, precinct in enumerate(precincts):
        halved = levels - max(0, level - 1)  # how often the picture is, in the bands of this level
        inner = int(level > 0)  # each of the bands of the first one alone has a whole precinct
        wide, high = min(across, max(0, (precinct & 15) - inner)), min(down, max(0, (precinct >> 4) - inner))
        one_band = (-(-width >> (halved + wide)) + 1) * (-(-height >> (halved + high)) + 1)
        count += one_band * (3 if level else 1)
    return count
