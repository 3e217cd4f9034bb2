"""Images to predict: files, folders and tables of them; no label is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from homing.errors import DataError
from homing.pools.pool import ImageStore, JoinedImages
from homing.pools.reading import FolderImages, is_table, open_table, walk


def find_images(paths: Sequence[Path]) -> tuple[JoinedImages, tuple[str, ...]]:
    """Where the images of some paths are read from, and what each is called; nothing is decoded.

    Args:
        paths: Image files (of any name), folders (searched to any depth), parquet files, saved datasets.

    Returns:
        One store, and a name for each of its rows: the path as given and what lies below it; for a table the path,
        a colon and the row, from 0.

    Raises:
        DataError: Paths are missing, a folder holds no image, or a table has no image column; lists all of them.
    """
    stores, names, wrong = [], [], []
    for path in paths:
        try:
            store, found = _open(path)
        except DataError as error:
            wrong.append(str(error))
            continue
        stores.append(store)
        names += found
    if wrong:
        raise DataError("\n".join(wrong))
    return JoinedImages(stores), tuple(names)


def _open(path: Path) -> tuple[ImageStore, list[str]]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give images, folders of them, or parquet files")
    if path.suffix == ".parquet" or (path.is_dir() and is_table(path)):
        store, _ = open_table(path)
        return store, [f"{path}:{row}" for row in range(len(store))]
    if path.is_dir():
        files = sorted(walk(str(path)))
        if not files:
            raise DataError(f"{path}: no images in this folder")
        return FolderImages(path, files), [str(path / file) for file in files]
    return FolderImages(path.parent, [path.name]), [str(path)]
