"""A `.zip` of an image folder as a pool: its central directory is read, and a picture when it is asked for."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from homing.errors import DataError
from homing.pools.columns import Columns
from homing.pools.files import MAX_FILE_BYTES, leads_out, states_within, unreadable
from homing.pools.folder import UNLABELLED, check_classes, column, labels_of_folders
from homing.pools.formats import SUFFIXES
from homing.pools.layouts import check_layout, layout_doubts
from homing.pools.packed_folders import only_folder
from homing.pools.pool import STATE_BYTES, Pool, ReadAs
from homing.pools.rows import StoreRows
from homing.pools.stored_files import StoredFile
from homing.pools.suffixes import is_junk, suffix_of
from homing.pools.texts import Texts
from homing.pools.walking import Listing

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

_HEADER = struct.Struct("<26s2H")  # in front of each member; ends in the lengths of its name and of what follows that
_DAMAGED = "the zip file is damaged here; copy or write it again"
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_MOST_FREE = 64_000_000  # bytes that a member may grow to, however small it was packed
_MEMBER = b"PK\1\2"  # how a member is listed
_CHECKED = 1 << 20  # bytes: what takes more is looked at before it is read
_MOST_DIRECTORY = 1_000_000_000  # bytes of the list of all members: some ten million
_MOST_GROWTH = 100  # times that a larger one may grow: pictures are packed already, but for plain bitmaps


def read_zip(name: str, file: StoredFile, spec: PoolSpec) -> Pool:
    """The pool that a zip of an image folder is, read as that folder would be.

    Args:
        name: Of the pool.
        file: The zip file.
        spec: Of the recipe.

    Raises:
        DataError: It is damaged, a class is empty, a column is asked for, or it can be read in two ways.
        OSError: It cannot be read.
    """
    for key in ("label_column", "id_column", "group_column"):
        if getattr(spec, key):
            column({}, getattr(spec, key), file.where, key.removesuffix("_column"))
    if spec.label_columns:
        column({}, spec.label_columns[0], file.where, "label")
    members, left = _members(file)
    top = only_folder({name[: name.rfind("/") + 1] for name in members if suffix_of(name) in SUFFIXES})
    if spec.split is not None:
        top = f"{top}{spec.split}/"
    inside = {member.removeprefix(top): info for member, info in members.items() if member.startswith(top)}
    if not inside:
        raise DataError(
            f"{file.where}: no images{f' in its folder {top!r}' if top else ''}; give a zip of an image folder"
        )
    listing, where = _listed(inside), f"{file.where}/{top}".rstrip("/")
    files, warnings = listing.files, [*left, *listing.doubts()]
    if (tables := listing.unread_tables()) is not None:
        warnings.append(f"{tables}; in a zip file none is: unpack it where they say more of the images")
    used = {"id": "the path in the zip file"}
    if spec.labels == "none":
        labels = Texts.constant(UNLABELLED, len(files))
    else:
        place = f"in its folder {top!r}" if top else "in the zip file"
        labels, used = labels_of_folders(files, where), {"label": f"the folder directly {place}", **used}
        check_classes(listing, where)
        check_layout(listing, where)
        warnings += layout_doubts(listing)
    read_as = ReadAs(name, "zip of an image folder", used, dict(listing.skipped), tuple(warnings))
    store = ZipImages(file, [inside[file] for file in files])
    rows = np.arange(len(files))
    return Pool(name, files, labels, store, Texts.constant(name, len(files)), Columns({}), rows, (read_as,))


def _without_dots(name: str) -> str:
    """Of a zip of `.`, all names begin with it."""
    while name.startswith("./"):
        name = name.removeprefix("./").lstrip("/")
    return name


def _members(zipped: StoredFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Files by their path in a zip, and a sentence on what was left out, where something was."""
    try:
        with zipped.open() as file, zipfile.ZipFile(cast("BinaryIO", _Directory(file))) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "the list of its members takes more memory than there is"
        raise DataError(f"{zipped.where}: cannot be read as a zip file ({reason}); copy or write it again") from error
    found: dict[str, zipfile.ZipInfo] = {}
    left: Counter[str] = Counter()
    for info in infos:
        if info.filename.endswith("/"):
            continue
        name = _without_dots(info.filename)
        if not 0 <= info.header_offset < zipped.size:
            raise DataError(f"{zipped.where}: says that {info.filename!r} lies outside of it; copy or write it again")
        if stat.S_ISLNK(info.external_attr >> 16):
            left["links"] += 1
        elif leads_out(name) or "\\" in name:
            left["names that lead out of the archive"] += 1
        elif any(map(is_junk, name.split("/"))):
            continue
        elif name in found:
            raise DataError(f"{zipped.where}: holds {name!r} twice; write it again")
        else:
            found[name] = info
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in sorted(left.items()))
    return found, [f"members that are no plain files inside were left out: {kinds}"] if kinds else []


class _Directory:
    """A zip file as its list of members is read, which is held as a whole: refused where it is none, or endless."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size <= _CHECKED:
            return self._file.read(size)
        begun = self._file.read(len(_MEMBER))
        if size > _MOST_DIRECTORY or begun != _MEMBER:
            raise zipfile.BadZipFile(f"it lists no members where it says that {size:,} bytes do")
        return begun + self._file.read(size - len(begun))


def _listed(inside: dict[str, zipfile.ZipInfo]) -> Listing:
    """What a walk over the unpacked folder would find."""
    listing, files = Listing(), []
    for name in inside:
        if suffix_of(name) in SUFFIXES:
            files.append(name)
            listing.note_folder(name[: name.rfind("/") + 1])
        else:
            listing.note_skipped(name)
    listing.folders = sorted({name.split("/")[0] for name in inside if "/" in name})
    texts = Texts(pa.array(files, pa.large_string()))
    listing.files = texts.take(texts.order())
    return listing


class ZipImages:
    """Images in a zip file, by row; from several threads at once.

    Args:
        file: The zip file.
        members: One a row.
    """

    def __init__(self, file: StoredFile, members: list[zipfile.ZipInfo]) -> None:
        self._file, self._members = file, members

    def __len__(self) -> int:
        return len(self._members)

    def read(self, row: int) -> bytes:
        """The picture's bytes, unpacked; raises OSError where they are not those that the zip file says."""
        member, size = self._members[row], self.size(row)
        header = self._file.read(member.header_offset, _HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(b"PK\3\4"):
            raise unreadable(_DAMAGED)
        start = member.header_offset + _HEADER.size + sum(_HEADER.unpack(header)[-2:])
        data = self._file.read(start, member.compress_size)
        if member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error:
                raise unreadable(_DAMAGED) from None
        if len(data) != size or zlib.crc32(data) != member.CRC:
            raise unreadable(_DAMAGED)
        return data

    def size(self, row: int) -> int:
        """Bytes of the picture, as the zip file says; raises OSError where it cannot be unpacked."""
        member = self._members[row]
        if member.compress_type not in _METHODS:
            raise unreadable(f"is packed by method {member.compress_type}; {' and '.join(_METHODS.values())} are read")
        if member.flag_bits & 1:
            raise unreadable("is encrypted; unpack the zip file")
        if member.file_size > MAX_FILE_BYTES:
            raise unreadable(
                f"{member.file_size:,} bytes, more than a picture has (at most {MAX_FILE_BYTES:,} are read)"
            )
        if member.compress_size > _packed_at_most(member):
            raise unreadable(_DAMAGED)
        if member.file_size > max(_MOST_FREE, _MOST_GROWTH * member.compress_size):
            raise unreadable(
                f"{member.compress_size:,} bytes would grow to {member.file_size:,}, which no picture does; unpack the"
                " zip file where it is sound"
            )
        return member.file_size

    def state(self, row: int) -> bytes | None:
        """Changes with the zip file and the row; None where it is gone."""
        found = self.states(np.array([row], np.int64))[0].tobytes()
        return found if any(found) else None

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """`state` of some rows, uint8 [len(rows), 16]; zeros where the zip file is gone."""
        state = self._file.state()
        if state is None:
            return np.zeros((len(rows), STATE_BYTES), np.uint8)
        places = [self._members[row].header_offset for row in np.asarray(rows).tolist()]
        return states_within(state, np.array(places, np.int64))

    def known_digest(self, row: int) -> bytes | None:
        """None: members are listed, not read."""
        return None


def _packed_at_most(member: zipfile.ZipInfo) -> int:
    """Bytes that a member may have in the zip file: what is stored has its own, and the worst deflating little more."""
    if member.compress_type == zipfile.ZIP_STORED:
        return member.file_size
    return member.file_size + member.file_size // 8 + 1_000
