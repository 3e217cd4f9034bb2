"""An image folder as a pool: classes by folder, or by a metadata file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.columns import Columns
from homing.pools.files import FolderImages
from homing.pools.metadata import metadata_of, read_metadata
from homing.pools.pool import Pool, ReadAs
from homing.pools.texts import Texts
from homing.pools.walking import Listing, list_images

if TYPE_CHECKING:
    from homing.recipe.schema import PoolSpec

UNLABELLED = "unlabelled"
"""Class of every row of a pool without labels."""
SPLIT_NAMES = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "evaluation", "holdout"}
)
_LISTED = 8
_ODD_PATH = r"^$|^/|\x00|//|/$|(^|/)\.\.?(/|$)"  # what is more than names with a slash between them
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


def column(columns: Mapping[str, Texts], name: str, where: Path, what: str) -> Texts:
    """A column by name.

    Raises:
        DataError: There is none; lists those that there are.
    """
    if name not in columns:
        hint = "add it" if what == "file" else f"set {what}_column to one of them, or add it"
        raise DataError(f"{where}: there is no column {name!r}; columns: {', '.join(columns) or 'none'}; {hint}")
    return columns[name]


def _by_folders(name: str, root: Path, spec: PoolSpec) -> Pool:
    for key in ("label_column", "id_column", "group_column"):
        if getattr(spec, key):
            column({}, getattr(spec, key), root, key.removesuffix("_column"))
    listing = list_images(root)
    files = listing.files
    if spec.labels == "none":
        labels = Texts.constant(UNLABELLED, len(files))
    else:
        labels = _folder_labels(files, root)
        _check_classes(listing, root)
        _check_splits(listing, root)
    read_as = ReadAs(
        name,
        "image folder",
        {"label": "the folder directly in the pool", "id": "the path of the file"},
        dict(listing.skipped),
        tuple(listing.doubts()),
    )
    return _pool(name, files, labels, FolderImages(root, files), Columns({}), read_as)


def _pool(name: str, ids: Texts, labels: Texts, store: FolderImages, columns: Columns, read_as: ReadAs) -> Pool:
    sources = Texts.constant(name, len(ids))
    return Pool(name, ids, labels, store, sources, columns, np.arange(len(ids)), (read_as,))


def _folder_labels(files: Texts, root: Path) -> Texts:
    """The first folder of each path."""
    plain = files.plain()
    ends = pc.find_substring(plain, "/")
    direct = pc.index(ends, pa.scalar(-1, ends.type)).as_py() if len(plain) else -1
    if direct >= 0:
        raise DataError(
            f"{root / files[direct]}: lies directly in the pool, so it has no class; put images into one sub-folder a"
            " class, or add metadata.csv with the columns file_name and label"
        )
    return Texts(pc.replace_substring_regex(plain, r"(?s)/.*", "").dictionary_encode())


def _check_classes(listing: Listing, root: Path) -> None:
    filled = set(_folder_labels(listing.files, root).unique())
    empty = [name for name in listing.folders if name not in filled]
    if not filled or not empty:
        return
    why = [
        f"{name} leads to the folder {listing.again[name]}, listed already" for name in empty if name in listing.again
    ]
    kinds = [f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(listing.skipped.items())]
    why += [f"files that are no images by their name: {', '.join(kinds)}"] if kinds else []
    more = f" ({'; '.join(why)})" if why else ""
    raise DataError(f"{root}: no images of the class {', '.join(empty)}; fill the folder or remove it{more}")


def _check_splits(listing: Listing, root: Path) -> None:
    """Refuse train/<class>, val/<class>: the splits would become the classes."""
    names = listing.folders
    if not names or not all(name.lower() in SPLIT_NAMES for name in names):
        return
    inside = pc.replace_substring_regex(listing.files.plain(), r"(?s)^[^/]*/", "")
    deeper = pc.find_substring(inside, "/")
    if not pc.all(pc.greater_equal(deeper, 0)).as_py():
        return
    pairs = Texts(pc.replace_substring_regex(listing.files.plain(), r"(?s)^([^/]*/[^/]*)/.*", r"\1")).unique()
    below = {name: {pair.partition("/")[2] for pair in pairs if pair.startswith(f"{name}/")} for name in names}
    shared = sorted(set.intersection(*below.values()))
    if shared:
        listed = ", ".join(shared[:_LISTED]) + (", ..." if len(shared) > _LISTED else "")
        raise DataError(
            f"{root}: the folders {', '.join(names)} are named for splits, not classes, and hold the same sub-folders"
            f" ({listed}); name the one to read with split: {names[0]}, or give its path"
        )


def _by_metadata(name: str, root: Path, metadata: Path, spec: PoolSpec) -> Pool:
    table, warnings = _without_leftovers(read_metadata(metadata), metadata)
    files = _inside(root, column(table, "file_name", metadata, "file"), metadata)
    columns = Columns({key: _reader(table, key) for key in table if key != "file_name"})
    used = {"image": "file_name"}
    label_column = spec.label_column or ("label" if "label" in columns else None)
    if spec.labels == "none":
        labels = Texts.constant(UNLABELLED, len(files))
    elif label_column is not None:
        labels, used["label"] = column(columns, label_column, metadata, "label"), label_column
    else:
        labels, used["label"] = _folder_labels(files, root), "the folder directly in the pool"
        if columns:
            warnings.append(
                f"{metadata.name} has no column 'label', so folders were taken for classes"
                f" ({_few(labels.unique())}); where one of its columns ({_few(tuple(columns))}) holds the class, set"
                " label_column to its name"
            )
    ids, used["id"] = (
        (files, "file_name")
        if not spec.id_column
        else (
            column(columns, spec.id_column, metadata, "id"),
            spec.id_column,
        )
    )
    if spec.group_column:
        column(columns, spec.group_column, metadata, "group")
        used["group"] = spec.group_column
    read_as = ReadAs(name, f"image folder with {metadata.name}", used, {}, tuple(warnings))
    return _pool(name, ids, labels, FolderImages(root, files), columns, read_as)


def _without_leftovers(table: Columns, metadata: Path) -> tuple[Columns, list[str]]:
    """The rows that name no leftover of an operating system, and a warning where there were such."""
    names = column(table, "file_name", metadata, "file")
    leftover = np.asarray(pc.match_substring_regex(names.plain(), _LEFTOVER).to_numpy(zero_copy_only=False))
    if not leftover.any():
        return table, []
    first = names[int(np.flatnonzero(leftover)[0])]
    told = f"{metadata.name}: {leftover.sum():,} rows name what an operating system left behind (first: {first!r})"
    return table.take(np.flatnonzero(~leftover)), [f"{told} and were left out"]


def _reader(table: Columns, name: str) -> Callable[[], Texts]:
    return lambda: table[name]


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_LISTED]) + (f", ... {len(names):,} in all" if len(names) > _LISTED else "")


def _inside(root: Path, files: Texts, metadata: Path) -> Texts:
    """File names of the metadata as paths inside its folder; each has to name something there.

    What lies there but cannot be read is a bad image, told with the others.

    Raises:
        DataError: A path leads outside, or names nothing.
    """
    plain = files.plain()
    if pc.any(pc.match_substring_regex(plain, _ODD_PATH)).as_py():
        files = Texts(_plain_path(text, metadata) for text in files)
    start = f"{root}{os.sep}"
    for row, file in enumerate(files):
        if not os.path.lexists(start + file):
            raise DataError(
                f"{metadata}: file_name {file!r} names no file in {root} (row {row}); correct it, or leave the row out"
            )
    return files


def _plain_path(text: str, metadata: Path) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\0" in text or not path.parts:
        raise DataError(
            f"{metadata}: file_name {text!r} points outside its folder; only paths inside are read: move the file"
            " there, or place a link"
        )
    return path.as_posix()
