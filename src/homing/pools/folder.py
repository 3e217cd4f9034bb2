"""An image folder as a pool: classes by folder, or by a metadata file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.columns import Columns
from homing.pools.files import FolderImages
from homing.pools.filters import chosen_rows
from homing.pools.inside import numbered, paths_inside
from homing.pools.layouts import check_layout, layout_doubts
from homing.pools.metadata import metadata_of, read_metadata
from homing.pools.pool import Pool, ReadAs
from homing.pools.texts import Texts
from homing.pools.walking import Listing, list_images

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

UNLABELLED = "unlabelled"
"""Class of every row of a pool without labels."""
_UNREAD = "one counts where it is called metadata.csv, .jsonl or .parquet and lies in the pool's folder"
_LEFTOVER = r"(?i)(^|/)(\._[^/]*|__macosx|@eadir|thumbs\.db|desktop\.ini|\.ds_store)(/|$)"


def read_folder(name: str, root: Path, spec: PoolSpec) -> Pool:
    """The pool that an image folder is.

    Args:
        name: Of the pool.
        root: The folder (of the split, where there is one).
        spec: Of the recipe.

    Raises:
        DataError: It cannot be listed, a class is empty, a column is missing, or it can be read in two ways.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data split {spec.split!r} of {spec.path}")
    metadata = metadata_of(root)
    return _by_folders(name, root, spec) if metadata is None else _by_metadata(name, root, metadata, spec)


def column(columns: Mapping[str, Texts], name: str, where: Path | str, what: str) -> Texts:
    """A column by name.

    Raises:
        DataError: There is none; lists those that there are.
    """
    if name not in columns:
        hint = (
            "set image_column to the one that holds the paths of the images"
            if what == "file"
            else f"set {what}_column to one"
        )
        raise DataError(
            f"{where}: there is no column {name!r}; columns: {quoted(columns) or 'none'}; {hint}, or add it"
        )
    return columns[name]


def _by_folders(name: str, root: Path, spec: PoolSpec) -> Pool:
    for key in ("image_column", "label_column", "id_column", "group_column"):
        if getattr(spec, key):
            column({}, getattr(spec, key), root, key.removesuffix("_column"))
    if spec.label_columns:
        column({}, spec.label_columns[0], root, "label")
    if spec.where:
        raise DataError(f"{root}: where chooses rows of a table, and this is a folder of images; leave it out")
    listing = list_images(root)
    files, warnings = listing.files, listing.doubts()
    if (tables := listing.unread_tables()) is not None:
        if not files:
            if inside := [name for name in listing.folders if name.endswith(".lance")]:
                raise DataError(f"{root}: no images; it holds a Lance table: give the path {root}/{inside[0]}")
            raise DataError(
                f"{root}: no images; {tables}; give the path of a parquet file, or of the folder it lies in"
            )
        warnings.append(f"{tables}; {_UNREAD}")
    used = {"id": "the path of the file"}
    if spec.labels == "none":
        labels = Texts.constant(UNLABELLED, len(files))
    else:
        labels, used = labels_of_folders(files, root), {"label": "the folder directly in the pool", **used}
        check_classes(listing, root)
        check_layout(listing, root)
        warnings += layout_doubts(listing)
    read_as = ReadAs(name, "image folder", used, dict(listing.skipped), tuple(warnings))
    return _pool(name, files, labels, FolderImages(root, files), Columns({}), read_as)


def _pool(name: str, ids: Texts, labels: Texts, store: FolderImages, columns: Columns, read_as: ReadAs) -> Pool:
    sources = Texts.constant(name, len(ids))
    return Pool(name, ids, labels, store, sources, columns, np.arange(len(ids)), (read_as,))


def labels_of_folders(files: Texts, root: Path | str) -> Texts:
    """The first folder of each path.

    Raises:
        DataError: One lies in none.
    """
    plain = files.plain()
    ends = pc.find_substring(plain, "/")
    direct = pc.index(ends, pa.scalar(-1, ends.type)).as_py() if len(plain) else -1
    if direct >= 0:
        raise DataError(
            f"{root}/{files[direct]}: lies directly in the pool, so it has no class; put images into one sub-folder a"
            " class, or add metadata.csv with the columns file_name and label"
        )
    return Texts(pc.replace_substring_regex(plain, r"(?s)/.*", "").dictionary_encode())


def check_classes(listing: Listing, root: Path | str) -> None:
    """Refuse a folder directly in the pool that holds no image."""
    filled = set(labels_of_folders(listing.files, root).unique())
    empty = [name for name in listing.folders if name not in filled]
    if not filled or not empty:
        return
    why = [
        f"{name} leads to the folder {listing.again[name]}, listed already" for name in empty if name in listing.again
    ]
    kinds = [f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(listing.skipped.items())]
    why += [f"files that are no images by their name: {', '.join(kinds)}"] if kinds else []
    more = f" ({'; '.join(why)})" if why else ""
    raise DataError(f"{root}: no images of the class {quoted(empty)}; fill the folder or remove it{more}")


def _by_metadata(name: str, root: Path, metadata: Path, spec: PoolSpec) -> Pool:
    columns_read, doubts = read_metadata(metadata, spec.separator)
    table, left_out = _without_leftovers(columns_read, metadata, spec)
    warnings = [*doubts, *left_out]
    selection, image = "", spec.image_column or "file_name"
    if spec.where:
        rows = chosen_rows(table, spec.where, metadata)
        table, selection = table.take(rows), f"{len(rows):,} of {len(table[image]):,} rows where {spec.where}"
    files = paths_inside(root, column(table, image, metadata, "file"), metadata, image)
    columns = Columns({key: _reader(table, key) for key in table if key != image})
    used = {"image": image}
    label_column = spec.label_column or ("label" if "label" in columns else None)
    if spec.labels == "none" or spec.label_columns:
        labels = Texts.constant(UNLABELLED, len(files))
    elif label_column is not None:
        labels, used["label"] = column(columns, label_column, metadata, "label"), label_column
    else:
        if columns and not pc.all(pc.match_substring(files.plain(), "/")).as_py():
            column(columns, "label", metadata, "label")  # is not there, and neither are folders
        labels, used["label"] = labels_of_folders(files, root), "the folder directly in the pool"
        if columns:
            warnings.append(
                f"{metadata.name} has no column 'label', so folders were taken for classes"
                f" ({quoted(labels.unique())}); where one of its columns ({quoted(columns)}) holds the class, set"
                " label_column to its name"
            )
    ids, used["id"] = numbered(files), image
    if spec.id_column == image:
        ids = files
    elif spec.id_column:
        ids, used["id"] = column(columns, spec.id_column, metadata, "id"), spec.id_column
    if spec.group_column:
        column(columns, spec.group_column, metadata, "group")
        used["group"] = spec.group_column
    warnings += [] if spec.where else _unnamed(root, files, metadata)
    read_as = ReadAs(name, f"image folder with {metadata.name}", used, {}, tuple(warnings), selection=selection)
    return _pool(name, ids, labels, FolderImages(root, files), columns, read_as)


def _without_leftovers(table: Columns, metadata: Path, spec: PoolSpec) -> tuple[Columns, list[str]]:
    """The rows that name no leftover of an operating system, and a warning where there were such."""
    names = column(table, spec.image_column or "file_name", metadata, "file")
    leftover = np.asarray(pc.match_substring_regex(names.plain(), _LEFTOVER).to_numpy(zero_copy_only=False))
    if not leftover.any():
        return table, []
    first = names[int(np.flatnonzero(leftover)[0])]
    warning = f"{metadata.name}: {leftover.sum():,} rows name what an operating system left behind (first: {first!r})"
    return table.take(np.flatnonzero(~leftover)), [f"{warning} and were left out"]


def _reader(table: Columns, name: str) -> Callable[[], Texts]:
    return lambda: table[name]


def _unnamed(root: Path, files: Texts, metadata: Path) -> list[str]:
    """A warning where images lie in the folder that no row names."""
    try:
        listed = list_images(root).files
    except DataError:  # what lies there besides is of no matter
        return []
    named = pc.is_in(listed.plain(), value_set=files.plain())
    first = pc.index(named, pa.scalar(False)).as_py() if len(listed) else -1
    if first < 0:
        return []
    count = len(listed) - pc.sum(named).as_py()
    return [f"{count:,} images are named by no row of {metadata.name} (first: {listed[first]!r}) and were left out"]
