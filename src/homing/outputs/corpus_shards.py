"""Corpora as WebDataset shards and as a Lance table: a sample after the other, none is kept."""

from __future__ import annotations

import io
import itertools
import json
import math
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from homing.errors import RecipeError
from homing.outputs.corpus_forms import GROUP_BYTES, ROW_BYTES, SHARD_BYTES, CorpusRow, encoded, values_of
from homing.pools.lookup import ImagesById


class WebDataset:
    """`train-000000.tar`, …: of each sample the image and a `.json` with its id, class and rate.

    Args:
        images: Of the samples.
        columns: Of the rates file that go along.
        classes: Names, in the order of `label_index`.
        kinds: Column → its Arrow type.
    """

    def __init__(
        self, images: ImagesById, columns: Sequence[str], classes: Sequence[str], kinds: Callable[[str], Any]
    ) -> None:
        self.images, self.columns, self._kinds = images, columns, kinds
        self._index = {name: position for position, name in enumerate(classes)}
        self._suffixes: set[str] = set()

    def features(self) -> Any:
        """What `datasets` cannot tell from the first samples: kinds of images, types of what they know nothing of."""
        from datasets import Features, Image, Value

        about = {"sample_id": Value("string"), "label": Value("string"), "label_index": Value("int32")}
        about |= {**values_of(self.columns, self._kinds), "copy": Value("int32")}
        pictures = {suffix.removeprefix("."): Image() for suffix in sorted(self._suffixes)}
        return Features({**pictures, "json": about, "__key__": Value("string"), "__url__": Value("string")})

    def write(self, folder: Path, rows: Iterable[CorpusRow], part: str) -> None:
        """A sample for each copy of each row; a new shard after each 500 MB."""
        shards = (folder / f"{part}-{number:06d}.tar" for number in itertools.count())
        samples = self._samples(rows, part)
        sample = next(samples, None)
        while True:
            written = 0
            with tarfile.open(next(shards), "w", format=tarfile.USTAR_FORMAT) as shard:
                while sample is not None and written < SHARD_BYTES:
                    for name, data in sample:
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        shard.addfile(member, io.BytesIO(data))
                        written += len(data)
                    shard.members.clear()  # type: ignore[attr-defined] # it would keep the header of every file
                    sample = next(samples, None)
            if sample is None:
                return

    def _samples(self, rows: Iterable[CorpusRow], part: str) -> Iterator[list[tuple[str, bytes]]]:
        for row in rows:
            data, suffix = encoded(self.images, row)
            self._suffixes.add(suffix)
            label = str(row.values["label"])
            about = {"sample_id": row.sample_id, "label": label, "label_index": self._index[label]}
            about |= {name: _number(row.values[name]) for name in self.columns if name != "label"}
            for copy in range(row.count):
                key = f"{part}-{row.row:09d}-{copy}"  # one pool, where all shards are read together
                text = json.dumps({**about, "copy": copy}).encode()
                yield [(f"{key}{suffix}", data), (f"{key}.json", text)]


class LanceTable:
    """`train.lance`: a table with the columns image (bytes), label, sample_id, rate and what else is known.

    Args:
        images: Of the samples.
        schema: Arrow's, of the columns beside image, label and sample_id.
        classes: Names of the classes.
    """

    def __init__(self, images: ImagesById, columns: Sequence[str], kinds: Callable[[str], Any]) -> None:
        import pyarrow as pa

        if find_spec("lance") is None:
            raise RecipeError("--format lance needs a package: pip install 'homing[lance]'")
        self.images, self.columns = images, [name for name in columns if name != "label"]
        first = [("image", pa.binary()), ("label", pa.string()), ("sample_id", pa.string())]
        self._schema = pa.schema([*first, *((name, kinds(name)) for name in self.columns), ("copy", pa.int32())])

    def write(self, folder: Path, rows: Iterable[CorpusRow], part: str) -> None:
        """A row for each copy."""
        import lance
        import pyarrow as pa

        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches(rows))
        lance.write_dataset(reader, str(folder / f"{part}.lance"), schema=self._schema)

    def _batches(self, rows: Iterable[CorpusRow]) -> Iterator[Any]:
        import pyarrow as pa

        group: list[dict[str, Any]] = []
        held = 0
        for row in rows:
            data, _ = encoded(self.images, row)
            about = {"image": data, "label": str(row.values["label"]), "sample_id": row.sample_id}
            for copy in range(row.count):
                group.append({**about, **{name: row.values[name] for name in self.columns}, "copy": copy})
                held += len(data) + ROW_BYTES
                if held > GROUP_BYTES:
                    yield pa.RecordBatch.from_pylist(group, schema=self._schema)
                    group, held = [], 0
        if group:
            yield pa.RecordBatch.from_pylist(group, schema=self._schema)


def _number(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
