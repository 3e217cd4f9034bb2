"""A table as a pool: which rows, which columns, and what its rows are called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from homing.errors import DataError
from homing.pools.files import FolderImages
from homing.pools.filters import chosen_rows
from homing.pools.folder import UNLABELLED, column
from homing.pools.inside import numbered
from homing.pools.metadata import columns_of
from homing.pools.pool import Pool, ReadAs
from homing.pools.remote_images import RemoteImages
from homing.pools.rows import StoreRows
from homing.pools.table_images import REMEDY, TableImages
from homing.pools.tables import Table
from homing.pools.texts import Texts
from homing.recipe.urls import is_url

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec


def read_table(table: Table, name: str, spec: PoolSpec) -> Pool:
    """The pool that a table is.

    Args:
        table: As it was opened.
        name: Of the pool.
        spec: Of the recipe.

    Raises:
        DataError: A column is missing or cannot be read, no row is as `where` says, or no image can be read.
    """
    root, image = spec.path, table.image_column(spec.image_column)
    if spec.root and not is_url(spec.root) and not Path(spec.root).is_dir():
        raise DataError(f"{root}: root: there is no folder {spec.root!r}; name the one where the paths of images begin")
    columns, rows, selection = columns_of(table), np.arange(len(table)), ""
    if spec.where:
        rows = chosen_rows(columns, spec.where, root)
        columns, selection = columns.take(rows), f"{len(rows):,} of {len(table):,} rows where {spec.where}"
    store = table.images(image, _root_of(spec), rows)
    if not isinstance(store, TableImages):
        rows = np.arange(len(rows))
    used = {"image": image}
    if spec.labels == "none" or spec.label_columns:
        labels = Texts.constant(UNLABELLED, len(rows))
    else:
        used["label"] = spec.label_column or "label"
        labels = column(columns, used["label"], root, "label")
    if spec.group_column:
        column(columns, spec.group_column, root, "group")
        used["group"] = spec.group_column
    if spec.id_column:
        ids, used["id"] = column(columns, spec.id_column, root, "id"), spec.id_column
    else:
        ids, used["id"] = _ids(store, rows, image, root)
    read_as = ReadAs(name, table.kind, used, {}, table.warnings, table.version, selection)
    return Pool(name, ids, labels, store, Texts.constant(name, len(rows)), columns, rows, (read_as,))


def _root_of(spec: PoolSpec) -> Path | str | None:
    return Path(spec.root) if spec.root and not is_url(spec.root) else spec.root


def _ids(store: TableImages | FolderImages | RemoteImages, rows: StoreRows, image: str, root: str) -> tuple[Texts, str]:
    """Of some rows, and where they come from."""
    if not isinstance(store, TableImages):
        return numbered(store.names), image
    ids, wrong = store.content_ids(rows)
    if wrong and len(wrong) == len(ids):
        row, reason = next(iter(wrong.items()))
        reason = reason if REMEDY in reason else f"{reason}; {REMEDY}"
        raise DataError(f"{root}: none of its {len(ids):,} images can be read; row {row}: {reason}")
    return ids, "the sha256 of the image's bytes"
