"""Images to predict: files, folders and tables of them; no label is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from homing.errors import DataError
from homing.pools.files import FolderImages
from homing.pools.pool import ImageStore, JoinedImages
from homing.pools.tables import TABLES, is_table, open_table
from homing.pools.texts import Texts
from homing.pools.walking import list_images


class Found(NamedTuple):
    """Images to predict: where they are read from, what each is called, and what was left out, a sentence each."""

    store: JoinedImages
    names: Texts
    warnings: tuple[str, ...]


def find_images(paths: Sequence[Path]) -> Found:
    """Where the images of some paths are read from, and what each is called; nothing is decoded.

    Args:
        paths: Image files (of any name), folders (searched to any depth), tables, saved datasets.

    Returns:
        One store, a name for each of its rows (the path as given and what lies below it; for a table the path, a colon
        and the row, from 0), and what was left out, a sentence each.

    Raises:
        DataError: Paths are missing, a folder holds no image, or a table has no image column; lists all of them.
    """
    stores, names, warnings, wrong = [], [], [], []
    for path in paths:
        try:
            store, found, left_out = _open(path)
        except DataError as error:
            wrong.append(str(error))
            continue
        except UnicodeEncodeError:
            wrong.append(f"{_shown(path)}: the name is not UTF-8; rename the file or folder")
            continue
        stores.append(store)
        names.append(found)
        warnings += [f"{path}: {text}" for text in left_out]
    if wrong:
        raise DataError("\n".join(wrong))
    return Found(JoinedImages(stores), Texts.concat(names), tuple(warnings))


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _open(path: Path) -> tuple[ImageStore, Texts, Sequence[str]]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give images, folders of them, or tables")
    if path.suffix.lower() in TABLES or (path.is_dir() and is_table(path)):
        table = open_table(path)
        store = table.images()
        return store, Texts(np.arange(len(store)).astype(str).tolist()).with_prefix(f"{path}:"), table.warnings
    if path.is_dir():
        listing = list_images(path)
        if not listing.files:
            raise DataError(f"{path}: no images in this folder{''.join(f'; {text}' for text in listing.doubts())}")
        return FolderImages(path, listing.files), listing.files.with_prefix(f"{path}/"), listing.doubts()
    return FolderImages(path.parent, [path.name]), Texts([str(path)]), ()
