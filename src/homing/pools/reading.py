"""From a path in a recipe to a `Pool`: image folder, folder with metadata, parquet, saved dataset.

Everything is read where it lies; nothing is copied or cached, and no image is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.class_matching import renamed
from homing.pools.class_names import composed, quoted
from homing.pools.columns import Columns
from homing.pools.files import FolderImages
from homing.pools.folder import UNLABELLED, column, read_folder
from homing.pools.layouts import is_split_name
from homing.pools.pool import ImageStore, NoImages, Pool, ReadAs
from homing.pools.table_images import REMEDY
from homing.pools.tables import Table, is_table, open_table
from homing.pools.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from homing.recipe.schema import PoolSpec


_SPLIT_COLUMNS = frozenset({"split", "splits", "subset", "partition", "set", "phase", "usage"})


def read_pool(spec: PoolSpec) -> Pool:
    """Read the ids and labels of a pool; no image is decoded.

    Class names are compared in the Unicode form NFC, so labels are given in it.

    Raises:
        DataError: The path is missing or empty, a column is missing, ids are not unique, or it can be read in two ways.
    """
    root, name = Path(spec.path), name_of(spec)
    if not root.exists():
        raise DataError(
            f"{spec.path}: no such file or folder; give an image folder, a folder with metadata.csv,"
            " a parquet file or a saved dataset"
        )
    try:
        if root.is_dir() and not is_table(root):
            pool = read_folder(name, folder_of(spec), spec)
        else:
            pool = _read_table(root, name, spec)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise DataError(f"{error.filename or spec.path}: {reason}") from error
    if not len(pool):
        raise DataError(f"{spec.path}: no images; expected one sub-folder of images for each class, or a table")
    pool = _without_blank_labels(pool)
    _check_texts(pool, spec)
    return _limited(renamed(_composed(_told_of_splits(pool, spec)), spec), spec.limit)


def read_rows(spec: PoolSpec) -> tuple[Pool, Table]:
    """Ids and labels of a table whose rows need not be pictures, and the table itself.

    Args:
        spec: With a path, and the columns of ids and labels.

    Raises:
        DataError: As `read_pool`.
    """
    root = Path(spec.path)
    if not root.exists():
        raise DataError(f"{spec.path}: no such file or folder; give parquet, a folder of it, or a saved dataset")
    try:
        table = open_table(root, spec.split)
        if not len(table):
            raise DataError(f"{spec.path}: has no rows; rates need at least one on each side")
        columns = Columns({key: _reader(table, key) for key in table.names})
        ids, labels = (
            _named(columns, what, name or what, root)
            for what, name in (("id", spec.id_column), ("label", spec.label_column))
        )
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise DataError(f"{error.filename or spec.path}: {reason}") from error
    store: ImageStore = NoImages(len(table))
    with contextlib.suppress(DataError):  # pictures are shown where there are some, and nothing else is done with them
        store = table.images()
    name = name_of(spec)
    pool = Pool(name, ids, labels, store, Texts.constant(name, len(ids)), columns, np.arange(len(ids)))
    pool = _without_blank_labels(pool)
    _check_texts(pool, spec)
    return _composed(pool), table


def _named(columns: Columns, what: str, name: str, root: Path) -> Texts:
    if name not in columns:
        raise DataError(
            f"{root}: there is no column {name!r}; columns: {quoted(columns) or 'none'}; name the one of {what}s with"
            f" --{what}, or add it"
        )
    return columns[name]


def name_of(spec: PoolSpec) -> str:
    """What a pool is called: as the recipe says, else the last part of its path."""
    root = Path(spec.path)
    return spec.name or (root.name if root.is_dir() else root.stem) or "pool"


def folder_of(spec: PoolSpec) -> Path:
    """Where the files of an image folder lie."""
    return Path(spec.path) if spec.split is None else Path(spec.path) / spec.split


def files_are_ids(spec: PoolSpec) -> bool:
    """Whether the ids of a pool are paths of files below `folder_of(spec)`."""
    root = Path(spec.path)
    return root.is_dir() and not is_table(root) and spec.id_column is None


def _read_table(root: Path, name: str, spec: PoolSpec) -> Pool:
    table = open_table(root, spec.split)
    store, image_column = table.images(), table.image_column()
    columns = Columns({key: _reader(table, key) for key in table.names})
    used = {"image": image_column}
    if spec.labels == "none":
        labels = Texts.constant(UNLABELLED, len(store))
    else:
        used["label"] = spec.label_column or "label"
        labels = column(columns, used["label"], root, "label")
    if spec.group_column:
        column(columns, spec.group_column, root, "group")
        used["group"] = spec.group_column
    if spec.id_column:
        ids, used["id"] = column(columns, spec.id_column, root, "id"), spec.id_column
    else:
        ids, wrong = store.content_ids()
        used["id"] = "the sha256 of the image's bytes"
        if wrong and len(wrong) == len(ids):
            first = _with_remedy(wrong[0])
            raise DataError(f"{root}: none of its {len(ids):,} images can be read; row 0: {first}")
    read_as = ReadAs(name, table.kind, used, {}, table.warnings)
    return Pool(name, ids, labels, store, Texts.constant(name, len(ids)), columns, np.arange(len(ids)), (read_as,))


def _with_remedy(reason: str) -> str:
    return reason if REMEDY in reason else f"{reason}; {REMEDY}"


def _reader(table: Table, name: str) -> Callable[[], Texts]:
    return lambda: table.texts(name)


def _without_blank_labels(pool: Pool) -> Pool:
    """A label of nothing but space is none."""
    if not any(name.isspace() for name in pool.labels.unique()):
        return pool
    return replace(pool, labels=pool.labels.map_names(lambda name: "" if name.isspace() else name))


def _told_of_splits(pool: Pool, spec: PoolSpec) -> Pool:
    """The pool, with a warning of a column that says which split a row is of: nothing looks at it."""
    for name in pool.columns:
        if name.lower() not in _SPLIT_COLUMNS or name in (spec.label_column, spec.group_column, spec.id_column):
            continue
        values = [value for value in pool.columns[name].unique() if value]
        if len(values) > 1 and all(map(is_split_name, values)):
            (read_as,) = pool.read_as
            warning = f"rows of all splits ({quoted(values)} in the column {name!r}) were read as one pool"
            pool = replace(pool, read_as=(replace(read_as, warnings=(*read_as.warnings, warning)),))
    return pool


def _check_texts(pool: Pool, spec: PoolSpec) -> None:
    for what, texts in (("id", pool.ids), ("label", pool.labels)):
        lengths = pc.binary_length(texts.plain())
        empty = pc.index(lengths, pa.scalar(0, lengths.type)).as_py()
        if empty >= 0:
            where = f"row {empty}" if what == "id" or not _is_named(pool, spec) else pool.ids[empty]
            total = pc.sum(pc.equal(lengths, 0)).as_py()
            more = f" ({total:,} of {len(pool):,} rows have none)" if total > 1 else ""
            raise DataError(f"{spec.path}: {where} has no {what}{more}; fill it in or leave the row out")
    double = pool.ids.first_double()
    if double is not None:
        place = f"column {spec.id_column}" if spec.id_column else "the file names"
        raise DataError(f"{spec.path}: id {pool.ids[double]!r} occurs more than once in {place}; ids must be unique")


def _is_named(pool: Pool, spec: PoolSpec) -> bool:
    """Whether ids say more to the reader than the number of the row does."""
    return isinstance(pool.store, FolderImages) or spec.id_column is not None


def _composed(pool: Pool) -> Pool:
    """The pool with its class names in the Unicode form NFC, and dictionary-encoded."""
    codes, names = pool.labels.encode()
    labels = Texts.encoded(codes, map(composed, names))
    return Pool(pool.name, pool.ids, labels, pool.store, pool.sources, pool.columns, pool.rows, pool.read_as)


def _limited(pool: Pool, limit: int | None) -> Pool:
    """The `limit` rows whose ids hash lowest: the same ones when the pool grows a little."""
    if limit is None or limit >= len(pool):
        return pool
    hashes = b"".join(hashlib.sha256(sample_id.encode()).digest()[:8] for sample_id in pool.ids)
    lowest = np.argsort(np.frombuffer(hashes, ">u8"), kind="stable")[:limit]
    return pool.select(np.sort(lowest))
