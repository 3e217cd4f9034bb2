"""Pixels of a JPEG that a broken copy or a power cut took away: its decoder reads on, and shows something else.

Told is what can be told from the bytes: a file without the marker of its end, and long runs of zeros or ones where no
encoder writes them. Not told: a file that was cut and then ended properly, runs of zeros where the codes for "nothing
more in this block" are zeros themselves (some pictures with codes of their own, and progressive ones), other content.
"""

from __future__ import annotations

from collections.abc import Iterator

_RUN = 64  # bytes
_END = b"\xff\xd9"
_CODES, _PIXELS, _SEQUENTIAL = 0xC4, 0xDA, (0xC0, 0xC1)


def lost_pixels(data: bytes) -> str:
    """What is wrong with the pixels of a JPEG whose header is sound; nothing where nothing is found."""
    first_symbols: dict[int, int] = {}  # of each table of AC codes, the one that is written as zeros alone
    components = 0
    for marker, start, end in _segments(data):
        if marker == _CODES:
            first_symbols |= _first_symbols(data[start:end])
        elif marker in _SEQUENTIAL:
            components = data[start + 5]
        elif marker == _PIXELS:
            last = data.find(_END, end)
            if last < 0:
                return "truncated: it ends before its pixels do"
            if data.find(b"\xff" * _RUN, end, last) >= 0:
                return "a part of its pixels was overwritten with ones"
            tables = [data[at] & 15 for at in range(start + 2, start + 1 + 2 * data[start], 2)]
            is_all = components == data[start]  # in one pass over the picture
            if is_all and any(first_symbols.get(table) for table in tables) and data.find(bytes(_RUN), end, last) >= 0:
                return "a part of its pixels was overwritten with zeros"
            break
    return ""


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, first byte and end of the content of each segment up to the pixels; it stops where it is no JPEG's."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data) or end < at + 10:
            at = end if at + 4 <= end <= len(data) else len(data)
            continue
        yield marker, at + 4, end
        at = end


def _first_symbols(content: bytes) -> dict[int, int]:
    """Table of AC codes → the symbol of its first code; codes are canonical, so that it is zeros."""
    found, at = {}, 0
    while at + 17 < len(content):
        if content[at] >> 4 == 1:
            found[content[at] & 15] = content[at + 17]
        at += 17 + sum(content[at + 1 : at + 17])
    return found
