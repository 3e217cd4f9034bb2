"""From a path in a recipe to a `Pool`: image folder, folder with metadata, parquet, saved dataset.

Image folders are walked here, links only, nothing copied or cached; tables are read by Hugging Face datasets.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from homing.errors import DataError
from homing.pools.pool import Pool

if TYPE_CHECKING:
    from homing.recipe.schema import PoolSpec

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif", ".mpo"}
)
UNLABELLED = "unlabelled"
"""Class of every row of a pool without labels."""
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class FolderImages:
    """Image files by row."""

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root, self.names = root, list(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> bytes:
        """The file's bytes."""
        return (self.root / self.names[row]).read_bytes()

    def size(self, row: int) -> int:
        """The file's size, without reading it."""
        return (self.root / self.names[row]).stat().st_size


class TableImages:
    """Images inside a Hugging Face dataset, `Image(decode=False)`; files that it names must lie in its folder."""

    def __init__(self, dataset: Any, column: str, root: Path) -> None:
        self.dataset, self.column, self.root = dataset.select_columns([column]), column, root.resolve()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, row: int) -> bytes:
        """The bytes in the table, or those of the file that it names."""
        value = self.dataset[row][self.column]
        if value is None:
            raise OSError("the table holds no image")
        if value["bytes"] is not None:
            return bytes(value["bytes"])
        path = (self.root / str(value["path"])).resolve()
        if not path.is_relative_to(self.root):  # a table from elsewhere must not pick files of this machine
            raise OSError(f"the table names {value['path']!r}, a file outside the pool; only files inside are read")
        return path.read_bytes()

    def size(self, row: int) -> int:
        """The size of the bytes, which are read for it."""
        return len(self.read(row))


def read_pool(spec: PoolSpec) -> Pool:
    """Read the ids, labels and columns of a pool; no image is decoded.

    Raises:
        DataError: The path is missing or empty, a column is missing, or ids are not unique.
    """
    root, name = Path(spec.path), name_of(spec)
    if not root.exists():
        raise DataError(
            f"{spec.path}: no such file or folder; give an image folder, a folder with metadata.csv,"
            " a parquet file or a saved dataset"
        )
    if root.is_dir() and not is_table(root):
        pool = _read_folder(name, spec)
    else:
        pool = _read_table(root, name, spec)
    if not len(pool):
        raise DataError(f"{spec.path}: no images; expected one sub-folder of images for each class, or a table")
    _check_ids(pool, spec)
    return _limited(pool, spec.limit)


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


def is_table(root: Path) -> bool:
    """Whether a folder is a saved dataset or holds parquet files, and is no folder with metadata."""
    if any((root / name).exists() for name in _METADATA):
        return False
    saved = (root / "dataset_info.json").exists() or (root / "dataset_dict.json").exists()
    return saved or any(root.glob("*.parquet"))


def _read_folder(name: str, spec: PoolSpec) -> Pool:
    root = folder_of(spec)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data split {spec.split!r} of {spec.path}")
    metadata = next((root / file for file in _METADATA if (root / file).exists()), None)
    if metadata is not None:
        table = _read_metadata(metadata)
        files = [_inside(root, text, metadata) for text in _column(table, "file_name", metadata)]
    else:
        table = {}
        files = _image_files(root)
    columns = {key: tuple(map(_text, values)) for key, values in table.items() if key != "file_name"}
    label_column = spec.label_column or ("label" if "label" in columns else None)
    if spec.labels == "none":
        labels = (UNLABELLED,) * len(files)
    elif label_column is not None:
        labels = tuple(map(str, _column(columns, label_column, metadata or root)))
    else:
        labels = tuple(_folder_label(file, root) for file in files)
    ids = tuple(map(str, _column(columns, spec.id_column, metadata or root))) if spec.id_column else tuple(files)
    if spec.group_column:
        _column(columns, spec.group_column, metadata or root)
    return Pool(name, ids, labels, FolderImages(root, files), (name,) * len(ids), columns, np.arange(len(ids)))


def _image_files(root: Path) -> list[str]:
    """Images below a folder, as sorted paths inside it."""
    try:
        files = sorted(walk(str(root)))
        folders = [entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    empty = sorted(set(folders) - {file.partition("/")[0] for file in files})
    if files and empty:
        raise DataError(f"{root}: no images of the class {', '.join(empty)}; fill the folder or remove it")
    return files


def walk(folder: str, inside: str = "", above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Image files by their path inside the pool; links are followed, hidden files left out."""
    here = os.path.realpath(folder)
    if here in above:  # a loop of links
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from walk(entry.path, f"{inside}{entry.name}/", above | {here})
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield inside + entry.name


def _folder_label(file: str, root: Path) -> str:
    parts = PurePosixPath(file).parts
    if len(parts) < 2:
        raise DataError(
            f"{root / file}: lies directly in the pool, so it has no class; put images into one sub-folder a class,"
            " or add metadata.csv with the columns file_name and label"
        )
    return parts[0]


def _inside(root: Path, text: Any, metadata: Path) -> str:
    """A file name of the metadata as a path inside its folder."""
    path = PurePosixPath(str(text))
    if path.is_absolute() or ".." in path.parts or "\0" in str(text) or not path.parts:
        raise DataError(f"{metadata}: file_name {text!r} points outside its folder; only paths inside are read")
    if not os.path.lexists(root / path):  # what lies there but cannot be read is a bad image, told with the others
        raise DataError(f"{metadata}: file_name {text!r} names no file in {root}")
    return path.as_posix()


def _read_metadata(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                header = file.readline().rstrip("\r\n")
            names = [part.strip('"') for part in header.split(",")]
            # every cell as text: a class called 01, a null or a true stays what was written
            options = csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
            table = csv.read_csv(path, convert_options=options)
        else:
            table = json.read_json(path) if path.suffix == ".jsonl" else parquet.read_table(path)
        names = list(table.column_names)
        columns: dict[str, list[Any]] = table.to_pydict()
    except Exception as error:  # pyarrow raises many kinds on damaged files
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column occurs twice; columns: {', '.join(names)}")
    return columns


def _column(columns: dict[str, Any], name: str, where: Path) -> Any:
    if name not in columns:
        raise DataError(f"{where}: there is no column {name!r}; columns: {', '.join(columns) or 'none'}")
    return columns[name]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _read_table(root: Path, name: str, spec: PoolSpec) -> Pool:
    store, plain = open_table(root, spec.split)
    columns = {key: _texts(plain, key) for key in plain.column_names}
    if spec.labels == "none":
        labels = (UNLABELLED,) * len(store)
    else:
        labels = _column(columns, spec.label_column or "label", root)
    if spec.id_column:
        ids = _column(columns, spec.id_column, root)
    else:
        ids = _content_ids(store)
    if spec.group_column:
        _column(columns, spec.group_column, root)
    return Pool(name, ids, labels, store, (name,) * len(ids), columns, np.arange(len(ids)))


def open_table(root: Path, split: str | None = None) -> tuple[TableImages, Any]:
    """The images of a parquet file, a folder of them or a saved dataset, and the dataset without them.

    Raises:
        DataError: It cannot be read, has other splits, or no image column.
    """
    import datasets

    dataset = _open_dataset(root, split)
    images = [key for key, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
    if not images:
        raise DataError(f"{root}: no image column; columns: {', '.join(dataset.column_names)}")
    dataset = dataset.cast_column(images[0], datasets.Image(decode=False))
    store = TableImages(dataset, images[0], root if root.is_dir() else root.parent)
    return store, dataset.remove_columns(images)


def _open_dataset(root: Path, split: str | None) -> Any:
    import datasets

    if root.is_dir() and not any(root.glob("*.parquet")):
        try:
            dataset = datasets.load_from_disk(str(root))
        except Exception as error:  # datasets raises whatever its readers do
            raise DataError(f"{root}: cannot be read as a saved dataset: {error}") from error
        if isinstance(dataset, datasets.DatasetDict):
            splits = ", ".join(dataset)
            if split is None or split not in dataset:
                raise DataError(f"{root}: holds the splits {splits}; name one with split, found {split!r}")
            return dataset[split]
        if split is not None:
            raise DataError(f"{root}: holds no splits, found split {split!r}; leave it out")
        return dataset
    files = sorted(map(str, root.glob("*.parquet"))) if root.is_dir() else [str(root)]
    if split is not None:
        files = [file for file in files if Path(file).name.startswith(split)]
    if not files or not all(file.endswith(".parquet") for file in files):
        raise DataError(f"{root}: not a parquet file or a folder of them (split {split!r})")
    try:
        return datasets.Dataset.from_parquet(files, keep_in_memory=False)
    except Exception as error:  # datasets wraps whatever its readers raise in classes of its own
        raise DataError(f"{root}: cannot be read as parquet: {error}") from error


def _texts(dataset: Any, column: str) -> tuple[str, ...]:
    """A column as text; class labels by their names."""
    names = getattr(dataset.features[column], "names", None)
    values = dataset[column][:]
    if names is not None:
        return tuple("" if value is None or value < 0 else names[value] for value in values)
    return tuple(map(_text, values))


def _content_ids(store: TableImages) -> tuple[str, ...]:
    """sha256 of each image's bytes; further copies of one picture get a number behind it."""
    seen: dict[str, itertools.count[int]] = {}
    ids = []
    for row in range(len(store)):
        digest = hashlib.sha256(store.read(row)).hexdigest()[:32]
        number = next(seen.setdefault(digest, itertools.count(1)))
        ids.append(digest if number == 1 else f"{digest}-{number}")
    return tuple(ids)


def _check_ids(pool: Pool, spec: PoolSpec) -> None:
    for what, texts in (("id", pool.ids), ("label", pool.labels)):
        wrong = next((row for row, text in enumerate(texts) if not text or not _is_unicode(text)), None)
        if wrong is not None and not texts[wrong]:
            where = pool.ids[wrong] or f"row {wrong}"
            raise DataError(f"{spec.path}: {where} has no {what}; fill it in or leave the row out")
        if wrong is not None:
            raise DataError(f"{spec.path}: the name {texts[wrong]!r} is not UTF-8; rename the file or folder")
    if len(set(pool.ids)) < len(pool.ids):
        seen: set[str] = set()
        double = next(i for i in pool.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        column = f"column {spec.id_column}" if spec.id_column else "the file names"
        raise DataError(f"{spec.path}: id {double!r} occurs more than once in {column}; ids must be unique")


def _is_unicode(text: str) -> bool:
    """Whether a text can be written to a file: names of files that are not UTF-8 hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _limited(pool: Pool, limit: int | None) -> Pool:
    """The `limit` rows whose ids hash lowest: the same ones when the pool grows a little."""
    if limit is None or limit >= len(pool):
        return pool
    keys = [hashlib.sha256(sample_id.encode()).digest() for sample_id in pool.ids]
    return pool.select(sorted(sorted(range(len(pool)), key=keys.__getitem__)[:limit]))
