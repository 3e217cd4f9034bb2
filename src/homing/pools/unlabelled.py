"""Images to predict: files, folders and tables of them; no label is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from homing.errors import DataError
from homing.pools.files import FolderImages
from homing.pools.pool import ImageStore, JoinedImages
from homing.pools.tables import is_table, open_table
from homing.pools.texts import Texts
from homing.pools.walking import list_images


def find_images(paths: Sequence[Path]) -> tuple[JoinedImages, Texts]:
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
        names.append(found)
    if wrong:
        raise DataError("\n".join(wrong))
    return JoinedImages(stores), Texts.concat(names)


def _open(path: Path) -> tuple[ImageStore, Texts]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give images, folders of them, or parquet files")
    if path.suffix == ".parquet" or (path.is_dir() and is_table(path)):
        store = open_table(path).images()
        return store, Texts(np.arange(len(store)).astype(str).tolist()).with_prefix(f"{path}:")
    if path.is_dir():
        files = list_images(path).files
        if not files:
            raise DataError(f"{path}: no images in this folder")
        return FolderImages(path, files), files.with_prefix(f"{path}/")
    return FolderImages(path.parent, [path.name]), Texts([str(path)])
