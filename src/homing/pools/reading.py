"""From a path in a recipe to a `Pool`: image folder, folder with metadata, table, archive; here or in object storage.

Everything is read where it lies; nothing is copied or cached, and no image is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.archives import is_shard_folder, read_archive
from homing.pools.class_matching import renamed
from homing.pools.class_names import composed, quoted
from homing.pools.columns import Columns
from homing.pools.folder import read_folder
from homing.pools.hub import open_hub
from homing.pools.label_sets import as_told
from homing.pools.lance_table import is_lance, open_lance
from homing.pools.layouts import is_split_name
from homing.pools.metadata import columns_of
from homing.pools.pool import ImageStore, NoImages, Pool
from homing.pools.table_images import TableImages
from homing.pools.table_pools import read_table
from homing.pools.tables import Table, is_table, open_remote, open_table
from homing.pools.texts import Texts
from homing.recipe.hub_names import hub_name
from homing.recipe.urls import checked_url, is_url

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec


_SPLIT_COLUMNS = frozenset({"split", "splits", "subset", "partition", "set", "phase", "usage"})


def read_pool(spec: PoolSpec, *, sets: bool | None = False) -> Pool:
    """Read the ids and labels of a pool; no image is decoded.

    Class names are compared in the Unicode form NFC, so labels are given in it.

    Args:
        spec: Where it lies.
        sets: Whether a row has a set of labels; None: labels are of no matter, and stay as they are written.

    Raises:
        DataError: The path is missing or empty, a column is missing, ids are not unique, or it can be read in two ways.
    """
    spec = _resolved(spec)
    name = name_of(spec)
    try:
        if is_image_folder(spec):
            pool = read_folder(name, folder_of(spec), spec)
        elif (archive := read_archive(name, spec)) is not None:
            pool = archive
        else:
            pool = read_table(_open(spec), name, spec)
    except OSError as error:
        raise _told(error, spec) from error
    _check_keys(spec, pool)
    if not len(pool):
        (read_as,) = pool.read_as
        what = "expected one sub-folder of images for each class, or a table" if is_image_folder(spec) else read_as.kind
        raise DataError("; ".join([f"{spec.path}: no images", what, *read_as.warnings]))
    pool = _without_blank_labels(pool)
    _check_texts(pool, spec)
    told = _composed(_told_of_splits(as_told(pool, spec, sets=sets), spec))
    return _limited(told if sets is None else renamed(told, spec), spec.limit)


def read_rows(spec: PoolSpec) -> tuple[Pool, Table]:
    """Ids and labels of a table whose rows need not be pictures, and the table itself.

    Args:
        spec: With a path, and the columns of ids and labels.

    Raises:
        DataError: As `read_pool`.
    """
    spec = _resolved(spec)
    try:
        table = _open(spec)
        if not len(table):
            raise DataError(f"{spec.path}: has no rows; rates need at least one on each side")
        columns = columns_of(table)
        ids, labels = (
            _named(columns, what, name or what, spec.path)
            for what, name in (("id", spec.id_column), ("label", spec.label_column))
        )
    except OSError as error:
        raise _told(error, spec) from error
    store: ImageStore = NoImages(len(table))
    with contextlib.suppress(DataError, OSError):  # pictures are shown where there are some, and nothing else done
        store = table.images(spec.image_column)
    name = name_of(spec)
    pool = Pool(name, ids, labels, store, Texts.constant(name, len(ids)), columns, np.arange(len(ids)))
    pool = _without_blank_labels(pool)
    _check_texts(pool, spec)
    return _composed(as_told(pool, spec, sets=False)), table


def _told(error: OSError, spec: PoolSpec) -> DataError:
    """One sentence that begins with the file, whether or not the error's own words do."""
    where, reason = str(error.filename or spec.path), " ".join(str(error.strerror or error).split())
    return DataError(reason if reason.startswith(where) else f"{where}: {reason}")


def _named(columns: Columns, what: str, name: str, root: str) -> Texts:
    if name not in columns:
        raise DataError(
            f"{root}: there is no column {name!r}; columns: {quoted(columns) or 'none'}; name the one of {what}s with"
            f" --{what} (`homing score`: --{what}-column), or add it"
        )
    return columns[name]


def name_of(spec: PoolSpec) -> str:
    """What a pool is called: as the recipe says, else the last part of its path."""
    if spec.name:
        return spec.name
    root = Path(spec.path)
    if root.is_dir():
        return root.name.removesuffix(".lance") or "pool"
    plain = re.sub(r"[-_.\d]*\{.*", "", spec.path)  # shards/train-{0..9}.tar: train; shards/{0..9}.tar: shards
    return Path(plain).stem or "pool"


def folder_of(spec: PoolSpec) -> Path:
    """Where the files of an image folder lie."""
    return Path(spec.path) if spec.split is None else Path(spec.path) / spec.split


def is_image_folder(spec: PoolSpec) -> bool:
    """Whether a pool is a folder of images, with or without metadata: nothing else that is a folder."""
    root = Path(spec.path)
    is_folder = not is_url(spec.path) and root.is_dir()
    return is_folder and not (is_table(root) or is_lance(spec.path) or is_shard_folder(root))


def files_are_ids(spec: PoolSpec) -> bool:
    """Whether the ids of a pool are paths of files below `folder_of(spec)`."""
    return is_image_folder(spec) and spec.id_column is None


def _resolved(spec: PoolSpec) -> PoolSpec:
    """The same, with URLs that may be read, or the path of a file://."""
    places = {"path": spec.path, "root": spec.root}
    urls = {key: checked_url(place) for key, place in places.items() if place is not None and is_url(place)}
    return spec.model_copy(update=urls) if urls else spec


def _open(spec: PoolSpec) -> Table:
    """The table that a path names."""
    path = spec.path
    if (name := hub_name(path)) is not None:
        return open_hub(name, spec.split, spec.config, spec.revision)
    if is_lance(path):
        return open_lance(path, spec.split)
    if is_url(path):
        return open_remote(path, spec.split, spec.separator)
    if not Path(path).exists():
        raise DataError(
            f"{spec.path}: no such file or folder; give an image folder, a folder with metadata.csv, a table (parquet,"
            " csv, jsonl), a saved dataset, tar shards, a zip file, or the name of a dataset of the hub"
        )
    return open_table(Path(path), spec.split, spec.separator)


def _check_keys(spec: PoolSpec, pool: Pool) -> None:
    """Refuse keys that say nothing of a pool of its kind."""
    is_hub = hub_name(spec.path) is not None
    (read_as,) = pool.read_as
    wrong = [key for key in ("config", "revision") if getattr(spec, key) and not is_hub]
    wrong += ["where"] if spec.where and not read_as.selection else []
    is_csv = "separated by" in read_as.kind or read_as.kind.endswith("metadata.csv")
    wrong += ["separator"] if spec.separator and not is_csv else []
    wrong += ["root"] if spec.root and (is_image_folder(spec) or read_as.kind.startswith(("tar", "zip"))) else []
    wrong += ["image_column"] if spec.image_column and read_as.columns.get("image") != spec.image_column else []
    if wrong:
        verb, them = ("mean", "them") if len(wrong) > 1 else ("means", "it")
        raise DataError(f"{spec.path}: {' and '.join(wrong)} {verb} nothing for {read_as.kind}; leave {them} out")


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
        values: list[str] = []
        with contextlib.suppress(DataError):  # of structs or bytes: it says no split
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
        named = spec.id_column or next((one.columns.get("image") for one in pool.read_as), None)
        place = f"column {named}" if named else "the file names"
        raise DataError(f"{spec.path}: id {pool.ids[double]!r} occurs more than once in {place}; ids must be unique")


def _is_named(pool: Pool, spec: PoolSpec) -> bool:
    """Whether ids say more to the reader than the number of the row does."""
    return not isinstance(pool.store, TableImages) or spec.id_column is not None


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
