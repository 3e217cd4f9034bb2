"""What a tar file holds, by its headers alone: nothing is extracted, and what is said to be where is checked.

Python's tarfile reads headers of any size into memory and trusts sizes below zero; here both are an error.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from homing.errors import DataError
from homing.pools.files import leads_out
from homing.pools.suffixes import is_junk

_BLOCK = 512
_MOST_HEADER = 1 << 20  # bytes of a long name or of extended headers
_MOST_NAME = 4_096
_MOST_FILLED = 1 << 16  # bytes of zeros at the end of a tar
_LINKS = {b"1": "links", b"2": "links", b"3": "devices", b"4": "devices", b"6": "pipes"}
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.zst")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its path there, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


@dataclass
class Left:
    """What of a tar is not read.

    Attributes:
        skipped: Kind → members.
        has_end: Whether the tar ends with the mark of its end.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    has_end: bool = False


def members_of(file: BinaryIO, size: int, where: str, left: Left) -> Iterator[Member]:
    """Regular files with names that lead nowhere else, in their order; others are counted in `left`.

    Args:
        file: The tar, open; it may be read and sought in between two members.
        size: Its bytes.
        where: What to call it.
        left: Told of what is not read.

    Raises:
        DataError: It is compressed, cut off, damaged or no tar.
    """
    at, name, stated, is_sparse = 0, "", -1, False
    while at < size:
        header = _read(file, at, _BLOCK, size, where)
        if header == bytes(_BLOCK):
            left.has_end = True
            if any(_rest(file, at, size)):
                left.skipped["what lies behind the mark of the tar's end"] += 1
            return
        _check(header, at, where)
        kind, length = header[156:157], _number(header[124:136])
        at += _BLOCK
        if kind in (b"x", b"g", b"L", b"K", b"X"):
            if length > _MOST_HEADER:
                raise DataError(f"{where}: a header at byte {at - _BLOCK:,} is {length:,} bytes long; no tar is read")
            if kind in (b"x", b"X"):
                path, stated, is_sparse = _extended(_read(file, at, length, size, where))
                name = path or name
            elif kind == b"L":
                name = _text(_read(file, at, length, size, where))
            at += _padded(length)
            continue
        if kind == b"S":
            at = _behind_map(file, header, at, size, where)
        full = name or _name_of(header)
        if stated >= 0 and kind not in (b"5", *_LINKS):
            length = stated
        has_data = kind not in (b"5", *_LINKS)
        if has_data and at + length > size:
            raise _cut_off(where, size)
        reason = _why_not(kind, full, is_sparse)
        if reason is None:
            yield Member(posixpath.normpath(full), at, length)
        elif reason:
            left.skipped[reason] += 1
        at += _padded(length) if has_data else 0
        name, stated, is_sparse = "", -1, False
    if at > size + _BLOCK:
        raise _cut_off(where, size)


def _why_not(kind: bytes, name: str, is_sparse: bool) -> str | None:
    """Why a member is not read: None where it is, empty where nobody needs to know."""
    if kind == b"5" or (kind in (b"0", b"\0") and name.endswith("/")):
        return ""
    if kind in _LINKS:
        return _LINKS[kind]
    if kind == b"S" or is_sparse:
        return "sparse files"
    if kind not in (b"0", b"\0", b"7"):
        return "members of unknown kinds"
    if leads_out(name):
        return "names that lead out of the archive"
    if len(name) > _MOST_NAME:
        return f"names of more than {_MOST_NAME:,} letters"
    if any(map(is_junk, (part for part in name.split("/") if part != "."))):
        return ""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "names that are not UTF-8"
    return None


def _rest(file: BinaryIO, at: int, size: int) -> bytes:
    """What is behind the mark of the end, as far as a writer fills it up: where tars were joined, the next begins."""
    file.seek(at)
    return file.read(min(size - at, _MOST_FILLED))


def _read(file: BinaryIO, at: int, length: int, size: int, where: str) -> bytes:
    if at + length > size:
        raise _cut_off(where, size)
    file.seek(at)
    data = file.read(length)
    if len(data) < length:
        raise _cut_off(where, size)
    return data


def _cut_off(where: str, size: int) -> DataError:
    return DataError(f"{where}: is cut off (at {size:,} bytes); copy or write it again")


def _check(header: bytes, at: int, where: str) -> None:
    stated = _number(header[148:156])
    plain = sum(header) - sum(header[148:156]) + 8 * ord(" ")  # its own field counts as spaces
    is_sum = stated == plain or stated == plain - 256 * sum(byte > 127 for byte in header)  # old tars: signed bytes
    if is_sum and _number(header[124:136]) >= 0:
        return
    if at == 0:
        packed = next((kind for magic, kind in _MAGIC.items() if header.startswith(magic)), None)
        if packed is not None:
            raise compressed(where)
        raise DataError(f"{where}: is no tar file; write it again")
    raise DataError(f"{where}: is damaged at byte {at:,}; copy or write it again")


def compressed(where: str) -> DataError:
    """The error of an archive of which nothing can be read without all that lies before it."""
    return DataError(
        f"{where}: is compressed, so that no image can be read without all before it; unpack it to a plain .tar (images"
        " are compressed already)"
    )


def _number(field: bytes) -> int:
    """Octal digits, or 255 bits for what is larger; -1 where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return -1


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _name_of(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _extended(data: bytes) -> tuple[str, int, bool]:
    """Path and size of the member behind a pax header, and whether it is sparse; empty and -1 where it says none."""
    path, size, is_sparse, at = "", -1, False, 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit() or int(data[at:space]) <= space - at + 1:
            break
        end = at + int(data[at:space])
        key, _, value = data[space + 1 : end - 1].partition(b"=")
        if key == b"path":
            path = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        elif key.startswith(b"GNU.sparse."):
            is_sparse = True
        at = end
    return path, size, is_sparse


def _behind_map(file: BinaryIO, header: bytes, at: int, size: int, where: str) -> int:
    """Where the data of a sparse file of GNU's old form begins: behind the blocks that say where its parts go."""
    more = header[482]
    while more:
        more = _read(file, at, _BLOCK, size, where)[504]
        at += _BLOCK
    return at
