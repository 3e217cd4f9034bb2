"""Tables with images or paths of images, read in place: parquet, csv, jsonl, saved datasets. Nothing is copied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.files import FolderImages, read_regular
from homing.pools.image_columns import holds_bytes, image_column_of, image_columns
from homing.pools.inside import paths_inside
from homing.pools.json_lines import JSONL, JsonlPart
from homing.pools.layouts import is_of_split, split_in
from homing.pools.object_store import list_objects
from homing.pools.part import Part
from homing.pools.remote_images import RemoteImages, remote_images
from homing.pools.remote_text import RemoteText, read_text
from homing.pools.rows import StoreRows
from homing.pools.suffixes import is_junk
from homing.pools.table_images import TableImages
from homing.pools.table_parts import ArrowPart, ParquetPart, open_parts
from homing.pools.table_texts import stated_classes, texts_of
from homing.pools.text_parts import CSV, SEPARATORS, CsvPart
from homing.pools.texts import Texts
from homing.recipe.urls import is_url

TABLES = (".parquet", *CSV, *JSONL)
"""Suffixes of files that are tables."""


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        root: Its file or folder, or the URL of it.
        kind: What it is called in messages.
        parts: Its files; all have the same columns.
        features: Column → what Hugging Face datasets says of it, where it says something.
        warnings: What may have been meant otherwise.
        version: The one that is read, where it has versions.
        files_in: Where the files lie that it names, if not beside it.
    """

    root: Path | str
    kind: str
    parts: tuple[Part, ...]
    features: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    version: str = ""
    files_in: Path | None = None

    def __len__(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @property
    def names(self) -> list[str]:
        """Names of all columns but those of images."""
        images = self._image_columns()
        return [name for name in self.parts[0].schema.names if name not in images]

    def texts(self, name: str) -> Texts:
        """A column as texts; class labels by their names.

        Raises:
            DataError: It cannot be read as such.
        """
        classes = stated_classes(self.features.get(name), f"{self.root}: column {name!r}")
        self._check_kinds(name)
        found = []
        for part in self.parts:
            try:
                found.append(texts_of(part.column(name), classes, f"{part.path}: column {name!r}"))
            except DataError:
                raise
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # a date beyond Python's years
                raise DataError(
                    f"{part.path}: column {name!r} cannot be read: {' '.join(str(error).split())}"
                ) from error
        return Texts.concat(found)

    def _check_kinds(self, name: str) -> None:
        """Refuse a column that holds texts in one file and numbers in another: 0 and cat would be classes alike."""
        self._check_alike(name, _kind_of)

    def _check_alike(self, name: str, told: Callable[[pa.DataType], object]) -> None:
        """Refuse a column of which something told by its type differs between files; one of nulls alone goes along."""
        kinds: dict[object, str] = {}
        for part in self.parts:
            kind = part.schema.field(name).type
            if not pa.types.is_null(kind):
                kinds.setdefault(told(kind), f"{part.path.name} ({kind})")
        if len(kinds) > 1:
            first, second = list(kinds.values())[:2]
            raise DataError(
                f"{self.root}: the column {name!r} is of another kind in {first} than in {second}; write one of them"
                " anew"
            )

    def image_column(self, chosen: str | None = None) -> str:
        """The column that images are read from; raises DataError as `image_column_of` does."""
        return image_column_of(self.parts[0].schema, self.features, self.root, chosen)

    def images(
        self, chosen: str | None = None, root: Path | str | None = None, rows: StoreRows | None = None
    ) -> TableImages | FolderImages | RemoteImages:
        """The images of all rows, or where the table holds paths alone, of some.

        Args:
            chosen: Their column; default: the one that looks like it.
            root: Folder, or URL of one, in which files that the table names have to lie; default: the table's own.
            rows: Those that are wanted.

        Raises:
            DataError: As `image_column`; or the column names files, none of which is there.
            OSError: A folder in object storage may not be listed.
        """
        name, folder = self.image_column(chosen), root or self.folder
        if holds_bytes(self.parts[0].schema.field(name).type):
            self._check_alike(name, holds_bytes)
            return TableImages(self.parts, name, folder if isinstance(folder, Path) else None)
        if folder is None:
            raise DataError(f"{self.root}: {name!r} holds paths; set root to the folder where they begin")
        texts = self.texts(name) if rows is None else self.texts(name).take(rows)
        if isinstance(folder, str):
            return remote_images(folder, texts, self.root, name)
        return FolderImages(folder, paths_inside(folder, texts, self.root, name))

    @property
    def folder(self) -> Path | str | None:
        """Where paths that it names begin, unless the user says otherwise: a folder, or the URL of one."""
        if self.files_in is not None:
            return self.files_in
        if isinstance(self.root, str):
            is_file = self.root.lower().endswith((*TABLES, ".lance"))
            return (self.root.rpartition("/")[0] if is_file else self.root) if is_url(self.root) else None
        return self.root if self.root.is_dir() else self.root.parent

    def _image_columns(self) -> list[str]:
        return image_columns(self.parts[0].schema, self.features)


def is_table(root: Path) -> bool:
    """Whether a folder is a saved dataset or holds parquet files, and is no folder with metadata."""
    from homing.pools.suffixes import METADATA

    if any((root / name).exists() for name in METADATA):
        return False
    saved = (root / "dataset_info.json").exists() or (root / "dataset_dict.json").exists()
    return saved or bool(_parquet_files(root))


def open_table(root: Path, split: str | None = None, separator: str | None = None) -> Table:
    """A table of parquet, csv, tsv or jsonl, a folder of parquet files, or a saved dataset.

    Args:
        root: Where it lies.
        split: Of the files of a folder, or of a saved dataset.
        separator: Between the cells of a csv or tsv file (see `SEPARATORS`); default: found out.

    Raises:
        DataError: It cannot be read, or has other splits.
    """
    if root.is_dir() and not _parquet_files(root):
        return _open_saved(root, split)
    files = _parquet_files(root) if root.is_dir() else [root]
    warnings = []
    if root.suffix.lower() in (*CSV, *JSONL):
        _check_unsplit(root, split)
    if split is not None:
        files = [file for file in files if is_of_split(file.name, split)]
    elif len(kinds := sorted({kind for file in files if (kind := split_in(file.name))})) > 1:
        warnings.append(f"the files are named for the splits {', '.join(kinds)}; all were read: name one with split")
    if not files or not all(file.suffix.lower() in TABLES for file in files):
        of_split = "" if split is None else f" (split {split!r})"
        raise DataError(
            f"{root}: not a parquet file or a folder of them{of_split}; give images in folders, a folder with"
            " metadata.csv, a table (.parquet, .csv, .tsv, .jsonl) or a saved dataset"
        )
    if root.is_dir():
        beside = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_junk(path.name))
        if beside:
            warnings.append(f"only its parquet files were read, not the folders beside them ({', '.join(beside[:8])})")
    return open_files(files, root, tuple(warnings), separator)


def _check_unsplit(root: Path | str, split: str | None) -> None:
    if split is not None:
        raise DataError(f"{root}: split {split!r} chooses nothing of one file; choose rows by a column, with where")


def open_files(
    files: Sequence[Path | RemoteText],
    root: Path | str,
    warnings: tuple[str, ...] = (),
    separator: str | None = None,
    what: str | None = None,
) -> Table:
    """Files of one kind, by the suffix of the first, as one table.

    Args:
        files: Of parquet, csv, tsv or jsonl.
        root: What they are called in messages.
        warnings: What may have been meant otherwise.
        separator: Between the cells of csv and tsv (see `SEPARATORS`); default: found out.
        what: Kind to be told when one cannot be read.

    Raises:
        DataError: One cannot be read, or their columns differ.
    """
    suffix = files[0].suffix.lower()
    place = "" if isinstance(files[0], Path) else " in object storage"
    if separator is not None and suffix not in CSV:
        raise DataError(f"{root}: has no cells that separator {separator!r} separates; leave it out")
    if suffix in JSONL:
        return table_of(
            root, f"{suffix[1:]}{place}", open_parts(files, JsonlPart, root, what or "a table"), {}, warnings
        )
    if suffix in CSV:
        parts = [CsvPart(file, SEPARATORS[separator] if separator else None) for file in files]
        warnings += tuple(part.doubt for part in parts if part.doubt is not None)
        between = next(word for word, sign in SEPARATORS.items() if sign == parts[0].separator)
        return table_of(root, f"{suffix[1:]}{place and place + ','} separated by {between}", parts, {}, warnings)
    local = [file for file in files if isinstance(file, Path)]
    return table_of(root, "parquet", open_parts(local, ParquetPart, root, what or "parquet"), {}, warnings)


def open_remote(url: str, split: str | None = None, separator: str | None = None) -> Table:
    """A table of text in object storage, or parquet files: one, or those directly in a folder.

    Raises:
        DataError: There are none, or they cannot be read, or their columns differ.
        OSError: The store cannot be asked.
    """
    if url.lower().endswith((*CSV, *JSONL)):
        _check_unsplit(url, split)
        return open_files([read_text(url)], url, separator=separator)
    files = [file for file in list_objects(url) if file.name.endswith(".parquet") and not is_junk(file.name)]
    if split is not None:
        files = [file for file in files if is_of_split(file.name, split)]
    if not files:
        of_split = "" if split is None else f" of the split {split!r}"
        raise DataError(
            f"{url}: holds no .parquet and no .tar file{of_split}; from object storage these are read,"
            " .zip and .lance, and .csv, .tsv and .jsonl that name images"
        )
    kinds = sorted({kind for file in files if split is None and (kind := split_in(file.name))})
    splits = f"the files are named for the splits {', '.join(kinds)}; all were read: name one with split"
    parts = open_parts(files, ParquetPart, url, "parquet")
    return table_of(url, f"parquet in object storage ({len(files):,})", parts, {}, (splits,) if len(kinds) > 1 else ())


def _open_saved(root: Path, split: str | None) -> Table:
    """A folder that `Dataset.save_to_disk` wrote: memory-mapped where it lies."""

    def wrong(reason: object) -> DataError:
        return DataError(f"{root}: cannot be read as a saved dataset: {reason}; save it again")

    if not any((root / name).exists() for name in ("state.json", "dataset_info.json", "dataset_dict.json")):
        raise DataError(f"{root}: holds no parquet files, and is no saved dataset either; give one of them")
    splits = _json(root / "dataset_dict.json", wrong).get("splits") if (root / "dataset_dict.json").exists() else None
    if splits is not None:
        if not isinstance(splits, list) or split not in splits:
            listed = ", ".join(map(str, splits)) if isinstance(splits, list) else splits
            given = "" if split is None else f", found {split!r}"
            raise DataError(f"{root}: holds the splits {listed}; name one with split{given}")
        return _open_saved(root / str(split), None)
    if split is not None:
        raise DataError(f"{root}: holds no splits, found split {split!r}; leave it out")
    state, info = _json(root / "state.json", wrong), _json(root / "dataset_info.json", wrong)
    if state.get("_indices_data_files"):
        raise wrong("it was saved with a selection of rows beside it, by an old version of datasets")
    try:
        names = [str(item["filename"]) for item in state["_data_files"]]
    except (KeyError, TypeError):
        raise wrong("state.json names no files") from None
    if odd := [name for name in names if Path(name).name != name or name in ("", ".", "..")]:
        raise wrong(f"state.json names {odd[0]!r}, which is no file in the folder")
    if not names:
        raise DataError(f"{root}: no images; the saved dataset is empty")
    parts = open_parts([root / name for name in names], ArrowPart, root, "a saved dataset")
    features = info.get("features")
    return table_of(root, "saved dataset", parts, features if isinstance(features, dict) else {}, ())


def _json(path: Path, wrong: Callable[[object], DataError]) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise wrong(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise wrong(f"{path.name} holds no object")
    return found


def table_of(
    root: Path | str, kind: str, parts: Sequence[Part], features: Mapping[str, Any], warnings: tuple[str, ...]
) -> Table:
    """Some files as one table.

    Raises:
        DataError: A column occurs twice, or their columns or classes differ.
    """
    first = parts[0].schema
    if len(set(first.names)) < len(first.names):
        raise DataError(f"{root}: a column occurs twice; columns: {quoted(first.names)}")
    features = _stated_features(first) or features
    for part in parts[1:]:
        if set(part.schema.names) != set(first.names) or _stated_features(part.schema) != _stated_features(first):
            raise DataError(
                f"{root}: {part.path.name} has other columns ({', '.join(part.schema.names)}) or classes than"
                f" {parts[0].path.name} ({', '.join(first.names)}); the files of one pool have the same"
            )
    return Table(root, kind, tuple(parts), features, warnings)


def _stated_features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face datasets wrote of each column into a schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind_of(kind: pa.DataType) -> str:
    """What values of a type look like as texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return "int" if pa.types.is_integer(kind) else str(kind).removeprefix("large_").removesuffix("_view")


def _parquet_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.parquet") if not is_junk(path.name))
