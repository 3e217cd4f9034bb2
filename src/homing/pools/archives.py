"""From a path to the archives that it stands for: tar shards, one or many, or a zip file; here or in object storage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.layouts import is_of_split
from homing.pools.object_store import list_objects
from homing.pools.pool import Pool
from homing.pools.stored_files import LocalFile, StoredFile, expanded
from homing.pools.suffixes import METADATA, is_junk, suffix_of
from homing.pools.tar_headers import COMPRESSED, compressed
from homing.pools.tar_shards import read_shards
from homing.pools.zip_folder import read_zip
from homing.recipe.urls import is_url

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

_TAR = (".tar", *COMPRESSED)
_BESIDE = frozenset({".json", ".txt", ".md", ".idx", ".yaml", ".yml", ".sha256", ".md5"})
"""What may lie beside shards without being a part of the pool: notes and sums."""
_ASKED_AT_ONCE = 8


def read_archive(name: str, spec: PoolSpec) -> Pool | None:
    """The pool that archives are; None where a path names none.

    Args:
        name: Of the pool.
        spec: Of the recipe.

    Raises:
        DataError: An archive is missing, compressed as a whole, or cannot be read.
        OSError: One cannot be looked at.
    """
    path = spec.path
    if path.lower().endswith(".zip") and (is_url(path) or Path(path).is_file()):
        (file,) = _files(path)
        return read_zip(name, file, spec)
    shards = find_shards(path, spec.split)
    return None if shards is None else read_shards(name, shards, spec)


def find_shards(path: str, split: str | None) -> Sequence[StoredFile] | None:
    """The tar files that a path stands for: one, a pattern with braces, a folder of them; None where it is no such.

    Raises:
        DataError: One is missing or compressed, or none is of the split.
        OSError: One cannot be looked at.
    """
    if path.lower().endswith(_TAR):
        paths = [path] if not is_url(path) and Path(path).exists() else expanded(path)
        _check_plain(paths)
        with ThreadPoolExecutor(_ASKED_AT_ONCE, "list") as threads:
            files: Sequence[StoredFile] = [file for found in threads.map(_files, paths) for file in found]
    else:
        files = _in_folder(path)
    if not files or split is None:
        return files or None
    if of_split := [file for file in files if is_of_split(file.name, split)]:
        return of_split
    names = quoted(file.name for file in files)
    raise DataError(f"{path}: no tar file is called for the split {split!r}; files: {names}")


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder of this machine holds tar files, and nothing that could be a pool of another kind."""
    try:
        entries = [entry for entry in folder.iterdir() if not is_junk(entry.name)]
    except OSError:  # told where it is listed
        return False
    if not any(_is_tar(entry.name) for entry in entries):
        return False
    files = all(_is_tar(entry.name) or suffix_of(entry.name) in _BESIDE for entry in entries)
    return files and not any(entry.name in METADATA or entry.is_dir() for entry in entries)


def _in_folder(path: str) -> Sequence[StoredFile]:
    if is_url(path):
        return [file for file in list_objects(path) if file.name.lower().endswith(".tar")]
    folder = Path(path)
    if not folder.is_dir() or not is_shard_folder(folder):
        return []
    found = sorted(entry for entry in folder.iterdir() if _is_tar(entry.name) and not is_junk(entry.name))
    _check_plain(map(str, found))
    return [LocalFile(entry) for entry in found]


def _files(path: str) -> Sequence[StoredFile]:
    if is_url(path):
        return list_objects(path)
    if not Path(path).exists():
        stars = "; several shards are written shards/{0000..0127}.tar, or as their folder" if "*" in path else ""
        raise DataError(f"{path}: no such file; correct the path or pattern, or put the shard there{stars}")
    return [LocalFile(Path(path))]


def _is_tar(name: str) -> bool:
    return name.lower().endswith(_TAR)


def _check_plain(paths: Iterable[str]) -> None:
    for path in paths:
        if path.lower().endswith(COMPRESSED):
            raise compressed(path)
