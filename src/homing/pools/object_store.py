"""Files in object storage (s3://, gs://, hf://) through fsspec: listed with size and etag, read by ranges.

Credentials are fsspec's own matter: the environment and configuration files. A file system is asked for again at each
use, by the process that uses it: fsspec keeps one a process, and none lives on in a fork.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from homing.errors import DataError
from homing.pools.files import unreadable
from homing.pools.pool import STATE_BYTES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_HELD_FILES = 64  # open at a time, of each thread
_RANGE = 1 << 20
_LEAST_AHEAD, _MOST_AHEAD = 1 << 16, 8 << 20  # bytes: from where an answer takes longer than to be waited for
_GAP = 1 << 16  # between two ranges that are read one behind the other: headers, labels
_NEEDS = {"s3": "pip install 'homing[remote]'", "gs": "pip install 'homing[remote]' gcsfs"}
# a lost connection is an error within some two minutes: five tries of our own kind (s3fs), not five times five
_SETTINGS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 1}}},
    "gs": {"requests_timeout": 30},
}
_KEPT_OBJECTS = 100_000  # of a folder, listed: an object that is opened is then not asked for its etag once more
_MARKS = ("ETag", "etag", "md5Hash", "crc32c", "generation", "blob_id", "LastModified", "last_modified", "mtime")


def file_system(scheme: str) -> AbstractFileSystem:
    """Fsspec's file system of a scheme, the one of this process.

    Raises:
        DataError: The package that reads it is not installed.
    """
    try:
        import fsspec
        from fsspec.config import conf

        settings = {key: value for key, value in _SETTINGS.get(scheme, {}).items() if key not in conf.get(scheme, {})}
        return fsspec.filesystem(scheme, **settings)
    except ImportError:
        needs = _NEEDS.get(scheme, "pip install 'homing[remote]' huggingface_hub")
        raise DataError(f"{scheme}:// is not read without a further package: {needs}") from None


def list_objects(url: str) -> list[RemoteFile]:
    """The object of a URL, or those that lie directly below it; sorted.

    Raises:
        OSError: There is nothing, or it may not be read.
    """
    scheme = url.partition("://")[0]
    system = file_system(scheme)
    with _in_a_sentence(url):
        system.invalidate_cache(url)
        found = system.info(url)
        if found["type"] == "directory":
            listed = [one for one in system.ls(found["name"], detail=True) if one["type"] == "file"]
        else:
            listed = [found]
    files = [RemoteFile(f"{scheme}://{one['name']}", int(one["size"] or 0), _mark_of(one)) for one in listed]
    return sorted(files, key=lambda file: file.where)


def objects_in(folder: str) -> dict[str, tuple[int, str]]:
    """Size and mark of each object that lies directly in a folder, by its name; none where there is no such folder.

    Raises:
        OSError: It may not be read.
    """
    scheme = folder.partition("://")[0]
    system = file_system(scheme)
    with _in_a_sentence(folder):
        try:
            listed = system.ls(folder, detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        if scheme != "s3" or len(listed) > _KEPT_OBJECTS:  # others do not read under the condition of an etag
            system.invalidate_cache(folder)
    files = [one for one in listed if one["type"] == "file"]
    return {one["name"].rpartition("/")[2]: (int(one["size"] or 0), _mark_of(one)) for one in files}


class RemoteFile:
    """An object, as it was listed.

    Args:
        where: Its URL.
        size: Bytes.
        mark: Its etag, or what else changes with its content.
    """

    def __init__(self, where: str, size: int, mark: str) -> None:
        self.where, self.size, self.mark = where, size, mark
        self.name = where.rpartition("/")[2]
        self.key = f"{where}\0{size}\0{mark}"

    def __str__(self) -> str:
        return self.where

    def open(self, ahead: int = 1 << 20) -> BinaryIO:
        """The object, to read and seek in; for one thread.

        Args:
            ahead: Bytes that are read behind each range that is asked for; 0 for none.

        Raises:
            OSError: It is not there, may not be read, or is another one than was listed.
        """
        system = file_system(self.where.partition("://")[0])
        with _in_a_sentence(self.where):
            cache = "readahead" if ahead else "none"
            file = system.open(self.where, "rb", block_size=ahead or _RANGE, cache_type=cache)
            details = getattr(file, "details", None)
        if isinstance(details, dict) and (int(details["size"]), _mark_of(details)) != (self.size, self.mark):
            file.close()
            raise unreadable(f"{self.where} was changed since its rows were listed; start again")
        return cast(BinaryIO, _Guarded(file, self.where))

    def read(self, start: int, size: int) -> bytes:
        """Some bytes; a thread that reads one range behind the other is read ahead for, 8 MiB at most."""
        return _of_this_thread().read(self, start, size)

    def state(self) -> bytes:
        """Of URL, size and etag, as listed: what is read has these, or is an error."""
        return hashlib.blake2b(self.key.encode(errors="surrogatepass"), digest_size=STATE_BYTES).digest()

    def check(self) -> None:
        """Nothing: ranges are read under the condition that the object is the same, and blocks are copies of them."""


class _Reader:
    """What one thread holds: open files, and the last range that it read, with what lies behind it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._key, self._start, self._data, self._ahead = "", 0, b"", 0

    def read(self, of: RemoteFile, start: int, size: int) -> bytes:
        end = self._start + len(self._data)
        is_next = self._key == of.key and self._start <= start <= end + _GAP
        if not (is_next and start + size <= end):
            self._ahead = min(_MOST_AHEAD, max(_LEAST_AHEAD, 2 * self._ahead, 4 * size)) if is_next else 0
            length = min(size + self._ahead, max(0, of.size - start))
            file = self._file(of)
            file.seek(start)
            self._data = file.read(length)
            self._key, self._start = of.key, start
        return self._data[start - self._start :][:size]

    def _file(self, of: RemoteFile) -> BinaryIO:
        if of.key not in self._files:
            self._files[of.key] = of.open(ahead=0)
            if len(self._files) > _HELD_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(of.key)
        return self._files[of.key]


_local = threading.local()


def _of_this_thread() -> _Reader:
    reader = getattr(_local, "reader", None)
    if reader is None or reader.pid != os.getpid():  # what a fork took along belongs to its parent
        _local.reader = reader = _Reader()
    assert isinstance(reader, _Reader)
    return reader


class _Guarded(io.RawIOBase):
    """A file of fsspec whose failures are an OSError each, of one sentence."""

    def __init__(self, file: Any, where: str) -> None:
        self._file, self._where = file, where

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int | None = -1) -> bytes:
        with _in_a_sentence(self._where):
            return bytes(self._file.read(-1 if size is None else size))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _in_a_sentence(where: str) -> Iterator[None]:
    """Whatever a store or the network makes its client raise, as an OSError that names the object."""
    try:
        yield
    except Exception as error:  # each client has kinds of its own
        raise unreadable(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "there is no such object, bucket or folder"
    if type(error).__name__ == "FileExpired":  # of s3fs, which asks for the etag that it first saw
        return "was changed since its rows were listed; start again"
    if isinstance(error, PermissionError) or "credentials" in said.lower():
        return f"may not be read ({said}); credentials come from the environment or configuration files"
    return f"cannot be read ({said})"


def _mark_of(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _MARKS if info.get(key)), "")
