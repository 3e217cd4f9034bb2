"""The forms that a corpus is written in: `metadata.csv`, an image folder, a Hugging Face dataset.

Each takes pieces of the rates file one after the other and keeps none of them.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from homing.errors import DataError
from homing.outputs.safe_names import file_stem, safe_cell, safe_name, safe_path_cell
from homing.pools.lookup import ImagesById, StoredImage

SHARD_BYTES = 500_000_000
"""Image bytes in one parquet file of a dataset, about."""
GROUP_BYTES = 32_000_000  # held in memory at a time
ROW_BYTES = 1_000  # that the cells of a row take beside its image


@dataclass(frozen=True)
class CorpusRow:
    """One row of the rates file that belongs to the corpus.

    Attributes:
        row: Position in the rates file.
        count: Times it belongs to the corpus, at least 1.
        values: Column → value.
    """

    row: int
    count: int
    values: dict[str, Any]

    @property
    def sample_id(self) -> str:
        """Id of the sample."""
        return str(self.values["sample_id"])


class Form(Protocol):
    """Writes a corpus into a folder."""

    def write(self, folder: Path, rows: Iterable[CorpusRow], part: str) -> None:
        """Write all rows of a part: train or target."""
        ...


class MetadataTable:
    """`metadata.csv`: file_name, label, rate, copies and what else is known of each sample.

    Put beside the images, it makes them an image folder with rates. `file_name` is the sample's id where ids are
    paths in one folder; else it is left out.
    """

    def __init__(self, columns: Sequence[str], *, ids_are_paths: bool) -> None:
        self.columns, self.ids_are_paths = columns, ids_are_paths

    def write(self, folder: Path, rows: Iterable[CorpusRow], part: str) -> None:
        """One line a row, with the number of its copies."""
        first = ("file_name", "sample_id") if self.ids_are_paths else ("sample_id",)
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            lines = _Lines(file, (*first, *self.columns, "copies"))
            for row in rows:
                start = (safe_path_cell(row.sample_id),) if self.ids_are_paths else ()
                cells = (_cell(row.values[name]) for name in self.columns)
                lines.write((*start, safe_cell(row.sample_id), *cells, row.count))


class ImageFolder:
    """`<class>/<number>-<name>` for each image, links or copies, and `metadata.csv` with the rates."""

    def __init__(self, images: ImagesById, columns: Sequence[str], *, copy: bool) -> None:
        self.images, self.columns, self.copy = images, columns, copy

    def write(self, folder: Path, rows: Iterable[CorpusRow], part: str) -> None:
        """One file for each copy of each row."""
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            lines = _Lines(file, ("file_name", "sample_id", *self.columns, "copy"))
            for row in rows:
                image = self.images.find(str(row.values["source"]), row.sample_id)
                place = folder / safe_name(str(row.values["label"]))
                place.mkdir(exist_ok=True)
                for copy in range(row.count):
                    path = place / f"{row.row:08d}-{copy}-{file_stem(row.sample_id)}{_suffix(image, row.sample_id)}"
                    self._put(image, path)
                    cells = (_cell(row.values[name]) for name in self.columns)
                    name = safe_path_cell(path.relative_to(folder).as_posix())
                    lines.write((name, safe_cell(row.sample_id), *cells, copy))

    def _put(self, image: StoredImage, path: Path) -> None:
        if image.file is None:
            path.write_bytes(image.read())
        elif self.copy:
            shutil.copyfile(image.file, path)
        else:
            path.symlink_to(image.file.resolve())


class ImageDataset:
    """A Hugging Face dataset: parquet files with an `Image` column, a `ClassLabel` and a `rate`.

    Args:
        images: Of the samples.
        columns: Of the rates file that go along.
        classes: Names, in the order of the labels.
        kinds: Column → its Arrow type.
    """

    def __init__(
        self, images: ImagesById, columns: Sequence[str], classes: Sequence[str], kinds: Callable[[str], Any]
    ) -> None:
        self.images, self.columns, self.classes, self._kinds = images, columns, tuple(classes), kinds
        self._index = {name: position for position, name in enumerate(classes)}

    def write(self, folder: Path, rows: Iterable[CorpusRow], part: str) -> None:
        """`data/<part>-00000-of-0000n.parquet`, each of some 500 MB; a row for each copy."""
        data, shards = folder / "data", 0
        data.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            writer, written = None, 0
            for group in self._groups(rows):
                if writer is None or written > SHARD_BYTES:
                    stack.close()
                    writer, written = stack.enter_context(self._open(data / f"{part}-{shards:05d}.tmp")), 0
                    shards += 1
                writer.write_table(self._table(group))
                written += sum(len(item["image"]["bytes"]) for item in group)
            if writer is None:
                stack.enter_context(self._open(data / f"{part}-00000.tmp"))
                shards = 1
        for number in range(shards):
            os.replace(data / f"{part}-{number:05d}.tmp", data / f"{part}-{number:05d}-of-{shards:05d}.parquet")

    def _groups(self, rows: Iterable[CorpusRow]) -> Iterable[list[dict[str, Any]]]:
        group, held = [], 0
        for row in rows:
            data, suffix = encoded(self.images, row)
            name = f"{file_stem(row.sample_id)}{suffix}"
            cells = {key: row.values[key] for key in self.columns if key != "label"}
            label = self._index[str(row.values["label"])]
            for copy in range(row.count):
                picture = {"bytes": data, "path": name}
                group.append({"image": picture, "label": label, "sample_id": row.sample_id, **cells, "copy": copy})
                held += len(data) + ROW_BYTES
                if held > GROUP_BYTES:
                    yield group
                    group, held = [], 0
        if group:
            yield group

    def _schema(self) -> Any:
        import datasets

        features = datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=list(self.classes)),
                "sample_id": datasets.Value("string"),
                **values_of(self.columns, self._kinds),
                "copy": datasets.Value("int32"),
            }
        )
        return features.arrow_schema

    def _open(self, path: Path) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, self._schema(), compression="zstd")

    def _table(self, group: list[dict[str, Any]]) -> Any:
        import pyarrow as pa

        return pa.Table.from_pylist(group, schema=self._schema())


def values_of(columns: Sequence[str], kinds: Callable[[str], Any]) -> dict[str, Any]:
    """Columns of the rates file, but for the label, as `datasets` calls their types; kinds: column → Arrow type."""
    import datasets
    import pyarrow as pa

    schema = pa.schema([(name, kinds(name)) for name in columns if name != "label"])
    return dict(datasets.Features.from_arrow_schema(schema))


def encoded(images: ImagesById, row: CorpusRow) -> tuple[bytes, str]:
    """The encoded image of a row, and what the name of its file ends in.

    Raises:
        DataError: It cannot be had.
    """
    image = images.find(str(row.values["source"]), row.sample_id)
    try:
        data = image.read()
    except OSError as error:
        raise DataError(f"{row.sample_id}: cannot be read ({error.strerror})") from error
    return data, _suffix(image, row.sample_id, data)


class _Lines:
    """Lines of a CSV file."""

    def __init__(self, file: TextIO, header: Sequence[str]) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow([safe_cell(name) for name in header])

    def write(self, cells: Sequence[object]) -> None:
        self._writer.writerow(cells)


def _cell(value: object) -> object:
    if isinstance(value, str):
        return safe_cell(value)
    if isinstance(value, float):
        return f"{value:.7g}" if value == value else ""
    return "" if value is None else value


def _suffix(image: StoredImage, sample_id: str, data: bytes | None = None) -> str:
    """What the file's name ends in: as the pool's file does, else by what the bytes are."""
    from homing.pools.decoding import SUFFIXES, format_of

    if image.file is not None and image.file.suffix.lower() in SUFFIXES:
        return image.file.suffix.lower()
    try:
        kind = format_of(image.read() if data is None else data).lower()
    except (DataError, OSError) as error:
        raise DataError(f"{sample_id}: is no image that can be read ({error})") from error
    return {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif", "jpeg2000": ".jp2"}.get(kind, f".{kind}")
