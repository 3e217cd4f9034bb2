"""A table of text in object storage, held as a whole: what a file of this machine is for the readers of text."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

from homing.errors import DataError
from homing.pools.files import unreadable
from homing.pools.object_store import RemoteFile, list_objects

_MOST = 2_000_000_000


class RemoteText:
    """The bytes of an object, to be read as a text again and again.

    Args:
        file: The object, as it was listed.

    Raises:
        DataError: It is too large.
        OSError: It cannot be read, or was replaced since.
    """

    def __init__(self, file: RemoteFile) -> None:
        if file.size > _MOST:
            raise DataError(
                f"{file}: {file.size:,} bytes of text; from object storage at most {_MOST:,} are read:"
                " write it as parquet"
            )
        with file.open(ahead=0) as opened:
            self.data = opened.read(file.size)
        if len(self.data) != file.size:
            raise unreadable(f"{file}: {len(self.data):,} bytes of {file.size:,} came; start again")
        self.name, self.suffix = file.name, PurePosixPath(file.name).suffix
        self.state, self.check, self._where = file.state, file.check, file.where

    def __str__(self) -> str:
        return self._where

    def let_go(self) -> None:
        """No more bytes are asked for: what they say is held elsewhere."""
        self.data = b""

    def open(self, *, encoding: str, newline: str | None = None) -> io.TextIOWrapper:
        """The text from its beginning, as `Path.open` gives it."""
        return io.TextIOWrapper(io.BytesIO(self.data), encoding=encoding, newline=newline)


def read_text(url: str) -> RemoteText:
    """The text that a URL names.

    Raises:
        DataError: It names a folder, or the text is too large.
        OSError: There is none, or it cannot be read.
    """
    found = list_objects(url)
    if [file.name for file in found] != [url.rpartition("/")[2]]:
        raise DataError(f"{url}: is a folder; of tables of text one file is read, give its path")
    return RemoteText(found[0])
