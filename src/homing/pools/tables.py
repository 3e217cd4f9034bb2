"""Tables with images, read in place: parquet files, a folder of them, a saved dataset. Nothing is copied or cached."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.suffixes import is_junk
from homing.pools.table_images import TableImages
from homing.pools.table_parts import ArrowPart, ParquetPart, Part, open_parts
from homing.pools.table_texts import texts_of
from homing.pools.texts import Texts


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        root: Its file or folder.
        kind: What it is called in messages.
        parts: Its files; all have the same columns.
        features: Column → what Hugging Face datasets says of it, where it says something.
        warnings: What may have been meant otherwise.
    """

    root: Path
    kind: str
    parts: tuple[Part, ...]
    features: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

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
        feature = self.features.get(name)
        classes = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        self._check_kinds(name)
        found = []
        for part in self.parts:
            try:
                found.append(texts_of(part.column(name), classes, f"{part.path}: column {name!r}"))
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{part.path}: column {name!r} cannot be read: {' '.join(str(error).split())}"
                ) from error
        return Texts.concat(found)

    def _check_kinds(self, name: str) -> None:
        """Refuse a column that holds texts in one file and numbers in another: 0 and cat would be classes alike."""
        kinds: dict[str, str] = {}
        for part in self.parts:
            kind = part.schema.field(name).type
            if not pa.types.is_null(kind):
                kinds.setdefault(_kind_of(kind), f"{part.path.name} ({kind})")
        if len(kinds) > 1:
            first, second = list(kinds.values())[:2]
            raise DataError(
                f"{self.root}: the column {name!r} is of another kind in {first} than in {second}; write one of them"
                " anew"
            )

    def image_column(self) -> str:
        """The column that images are read from.

        Raises:
            DataError: There is none, or there are several and none of them is called image.
        """
        images = self._image_columns()
        if not images:
            kinds = ", ".join(f"{field.name!r} ({field.type})" for field in self.parts[0].schema)
            raise DataError(
                f"{self.root}: no image column; one called image of bytes, or of structs of bytes and path, is wanted;"
                f" columns: {kinds or 'none'}"
            )
        if len(images) > 1 and "image" not in images:
            raise DataError(
                f"{self.root}: several image columns: {quoted(images)}; rename the one to read to image, or leave"
                " the others out"
            )
        name = "image" if "image" in images else images[0]
        kind = self.parts[0].schema.field(name).type
        is_struct = pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
        if not (is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DataError(f"{self.root}: the images of column {name!r} are of the type {kind}; bytes are wanted")
        return name

    def images(self) -> TableImages:
        """The images; raises DataError as `image_column` does."""
        return TableImages(self.parts, self.image_column(), self.root if self.root.is_dir() else self.root.parent)

    def _image_columns(self) -> list[str]:
        schema = self.parts[0].schema
        images = [name for name in schema.names if _says_image(self.features.get(name))]
        if images:
            return images
        return [field.name for field in schema if _looks_like_image(field)]


def is_table(root: Path) -> bool:
    """Whether a folder is a saved dataset or holds parquet files, and is no folder with metadata."""
    from homing.pools.suffixes import METADATA

    if any((root / name).exists() for name in METADATA):
        return False
    saved = (root / "dataset_info.json").exists() or (root / "dataset_dict.json").exists()
    return saved or bool(_parquet_files(root))


def open_table(root: Path, split: str | None = None) -> Table:
    """A parquet file, a folder of them, or a saved dataset.

    Raises:
        DataError: It cannot be read, or has other splits.
    """
    if root.is_dir() and not _parquet_files(root):
        return _open_saved(root, split)
    files = _parquet_files(root) if root.is_dir() else [root]
    warnings = []
    if split is not None:
        files = [file for file in files if _is_of_split(file.name, split)]
    elif len(kinds := sorted({kind for file in files if (kind := _split_in(file.name))})) > 1:
        warnings.append(f"the files are named for the splits {', '.join(kinds)}; all were read: name one with split")
    if not files or not all(file.suffix == ".parquet" for file in files):
        of_split = "" if split is None else f" (split {split!r})"
        raise DataError(
            f"{root}: not a parquet file or a folder of them{of_split}; give images in folders, a folder with"
            " metadata.csv, parquet files or a saved dataset"
        )
    if root.is_dir():
        beside = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_junk(path.name))
        if beside:
            warnings.append(f"only its parquet files were read, not the folders beside them ({', '.join(beside[:8])})")
    return open_parquet(files, root, tuple(warnings))


def open_parquet(files: Sequence[Path], root: Path, warnings: tuple[str, ...] = (), what: str = "parquet") -> Table:
    """Parquet files as one table.

    Raises:
        DataError: One cannot be read, or their columns differ.
    """
    return _table(root, "parquet", open_parts(files, ParquetPart, root, what), {}, warnings)


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
    return _table(root, "saved dataset", parts, features if isinstance(features, dict) else {}, ())


def _json(path: Path, wrong: Callable[[object], DataError]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise wrong(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise wrong(f"{path.name} holds no object")
    return found


def _table(root: Path, kind: str, parts: list[Part], features: Mapping[str, Any], warnings: tuple[str, ...]) -> Table:
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


def _says_image(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def _looks_like_image(field: pa.Field) -> bool:
    """A struct of bytes and path, or bytes in a column called image: what tables hold that datasets did not write."""
    kind = field.type
    if pa.types.is_struct(kind):
        return {"bytes", "path"} == {kind.field(n).name for n in range(kind.num_fields)}
    return field.name == "image" and bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _parquet_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.parquet") if not is_junk(path.name))


def _is_of_split(name: str, split: str) -> bool:
    """Whether a file is called for a split: train.parquet, train-00000-of-00002.parquet, train_1.parquet."""
    return re.match(rf"{re.escape(split)}([-.]|_?\d)", name) is not None


def _split_in(name: str) -> str | None:
    found = re.match(r"(train|training|validation|valid|val|test|dev)([-._]|\d)", name.lower())
    return found.group(1) if found else None
