"""Images that a table names, each an object of its own in object storage."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from homing.pools.files import MAX_FILE_BYTES, leads_out, unreadable
from homing.pools.inside import paths_inside, plain_paths
from homing.pools.object_store import RemoteFile, objects_in
from homing.pools.pool import STATE_BYTES
from homing.pools.rows import StoreRows
from homing.pools.texts import Texts

_LISTED_AT_ONCE = 8
_LONGEST = 1024  # letters of a path: stores take no more, and a cell may hold a whole picture as text
_SHOWN = 200  # letters of a cell in a message
_LOST = -1  # in place of a size


def remote_images(root: str, texts: Texts, table: Path | str, column: str) -> RemoteImages:
    """The images that the cells of a table name; each folder they lie in is listed once.

    Args:
        root: URL of the folder where paths begin.
        texts: The cells.
        table: What they come from, for messages.
        column: Its column, for messages.

    Raises:
        DataError: None of them names an object that is there.
        OSError: A folder may not be listed.
    """
    names = plain_paths(root, texts)
    folders = sorted({name.rpartition("/")[0] for name in names if _is_inside(name) and len(name) <= _LONGEST})
    objects: dict[str, tuple[int, str]] = {}
    with ThreadPoolExecutor(_LISTED_AT_ONCE, "list") as threads:
        listed = threads.map(lambda folder: objects_in(f"{root}/{folder}".rstrip("/")), folders)
        for folder, found in zip(folders, listed, strict=True):
            objects.update((f"{folder}/{name}" if folder else name, one) for name, one in found.items())
    return RemoteImages(root, paths_inside(root, names, table, column, objects), objects)


class RemoteImages:
    """Objects by row, as they were listed; each is read by a request of its own.

    Args:
        root: URL of their folder.
        names: Path of each inside it.
        objects: Size and mark of those that are there, by their paths.
    """

    def __init__(self, root: str, names: Texts, objects: Mapping[str, tuple[int, str]]) -> None:
        self.root, self.names = root, names
        found = [objects.get(name, (_LOST, "")) for name in names]
        self._sizes = np.array([size for size, _ in found], np.int64)
        self._marks = Texts(mark for _, mark in found)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> bytes:
        """The bytes of an object; raises OSError where there is none, or it is no longer what was listed."""
        file, size = self._file(row), self.size(row)
        data = file.read(0, size)
        if len(data) != size:
            raise unreadable(f"{file}: {len(data):,} bytes of {size:,} came")
        return data

    def size(self, row: int) -> int:
        """Bytes of an object, as it was listed; raises OSError where there is none, or it is no picture."""
        size = self._file(row).size
        if size > MAX_FILE_BYTES:
            raise unreadable(f"{size:,} bytes, more than a picture has (at most {MAX_FILE_BYTES:,} are read)")
        return size

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """Of URL, size and etag of some rows, as listed; uint8 [len(rows), 16], zeros where there is no such object."""
        gone = bytes(STATE_BYTES)
        found = b"".join(gone if self._sizes[row] == _LOST else self._file(int(row)).state() for row in rows)
        return np.frombuffer(found, np.uint8).reshape(-1, STATE_BYTES)

    def known_digest(self, row: int) -> bytes | None:
        """None: objects are listed, not read."""
        return None

    def _file(self, row: int) -> RemoteFile:
        name = self.names[row]
        if self._sizes[row] == _LOST:
            why = (
                "there is no such object" if _is_inside(name) else "points outside of it; only objects inside are read"
            )
            raise unreadable(f"{self.root}: the path {name[:_SHOWN]!r}: {why}")
        return RemoteFile(f"{self.root}/{name}", int(self._sizes[row]), self._marks[row])


def _is_inside(name: str) -> bool:
    return not leads_out(name) and "://" not in name
