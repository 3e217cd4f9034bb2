"""Where each member of a tar shard lies: found once by its headers, kept beside the features, for that file alone.

An index holds the texts of small `.cls`, `.txt` and `.json` members as well, so that listing a pool reads no shard.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from homing.errors import DataError
from homing.outputs.artefact import open_whole
from homing.pools.stored_files import StoredFile
from homing.pools.suffixes import suffix_of
from homing.pools.tar_headers import Left, Member, members_of
from homing.user_cache import INDEX_FOLDER, user_cache

_VERSION = "2"
_TEXTS = frozenset({".cls", ".txt", ".json"})
_MOST_TEXT = 1 << 16
_AT_ONCE = 8  # shards that are indexed together: what a store takes to answer is waited for once
_SCHEMA = pa.schema(
    [("name", pa.large_string()), ("offset", pa.int64()), ("size", pa.int64()), ("text", pa.large_binary())]
)


@dataclass(frozen=True)
class TarIndex:
    """The members of a shard.

    Attributes:
        file: The shard.
        members: Of the columns name, offset, size, text (null where it was not kept); a row each, in their order.
        fields: Keys of its `.json` members that hold texts, numbers, or lists of names.
        skipped: Kind → members that are not read.
        has_end: Whether it ends with the mark of its end.
    """

    file: StoredFile
    members: pa.Table
    fields: Sequence[str]
    skipped: Mapping[str, int]
    has_end: bool


def indices_of(shards: Sequence[StoredFile]) -> list[TarIndex]:
    """The index of each shard, out of the cache or by its headers.

    Raises:
        DataError: One is compressed, cut off, damaged or no tar.
        OSError: One cannot be read.
    """
    if len(shards) == 1:
        return [_index_of(shards[0])]
    with ThreadPoolExecutor(_AT_ONCE, "index") as threads:
        return list(threads.map(_index_of, shards))


def _index_of(shard: StoredFile) -> TarIndex:
    place = _place_of(shard)
    kept = None if place is None else _load(place, shard)
    if kept is not None:
        return kept
    left = Left()
    with shard.open() as file:
        rows = [(m.name, m.offset, m.size, _text_of(file, m)) for m in members_of(file, shard.size, shard.where, left)]
    with shard.open():  # is an error where it was changed meanwhile
        arrays = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(_SCHEMA)]
    members = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    index = TarIndex(shard, members, _fields(rows), dict(left.skipped), left.has_end)
    if place is not None:
        _keep(place, index)
    return index


def _text_of(file: BinaryIO, member: Member) -> bytes | None:
    if member.size > _MOST_TEXT or suffix_of(member.name) not in _TEXTS:
        return None
    file.seek(member.offset)
    return file.read(member.size)


def _fields(rows: Sequence[tuple[str, int, int, bytes | None]]) -> list[str]:
    found: dict[str, None] = {}
    for name, _, _, text in rows:
        if text is not None and suffix_of(name) == ".json":
            with suppress(ValueError, RecursionError):  # told with its name where its values are asked for
                value = json.loads(text)
                if isinstance(value, dict):
                    found |= {key: None for key in value if _is_read(value[key])}
    return list(found)


def _is_read(value: Any) -> bool:
    """A text, a number, or a list of names: labels of an image that has several."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return not isinstance(value, dict)


def _place_of(shard: StoredFile) -> Path | None:
    cache = user_cache()
    name = hashlib.sha256(shard.key.encode(errors="surrogatepass")).hexdigest()[:40]
    return None if cache is None else cache / INDEX_FOLDER / f"tar-{name}.parquet"


def _load(place: Path, shard: StoredFile) -> TarIndex | None:
    """What is kept of a shard; None where it is not there, of another shard, or damaged."""
    with suppress(OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        table = parquet.read_table(place)
        about = json.loads(table.schema.metadata[b"homing"])
        if about["version"] != _VERSION or about["key"] != shard.key or not table.schema.equals(_SCHEMA):
            return None
        ends = pa.compute.max(pa.compute.add(table["offset"], table["size"])).as_py()
        if (ends or 0) > shard.size:
            return None
        os.utime(place)
        table = table.replace_schema_metadata(None)
        return TarIndex(shard, table, about["fields"], about["skipped"], bool(about["has_end"]))
    return None


def _keep(place: Path, index: TarIndex) -> None:
    about: dict[str, Any] = {"version": _VERSION, "key": index.file.key, "fields": index.fields}
    about |= {"skipped": index.skipped, "has_end": index.has_end}
    table = index.members.replace_schema_metadata({"homing": json.dumps(about)})
    with suppress(OSError):  # what cannot be kept is found again the next time
        place.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(place) as file:
            parquet.write_table(table, file, compression="zstd")


def no_doubles(indices: Sequence[TarIndex], keys: Sequence[pa.Array]) -> None:
    """Whether each key is in one shard only.

    Args:
        indices: Of the shards.
        keys: Those of each shard's samples.

    Raises:
        DataError: Names a key, and both shards.
    """
    numbers = pa.concat_arrays([pa.array([number] * len(part), pa.int32()) for number, part in enumerate(keys)])
    table = pa.table({"key": pa.concat_arrays(list(keys)), "shard": numbers})
    counts = table.group_by("key").aggregate([("shard", "min"), ("shard", "max"), ("shard", "count")])
    twice = counts.filter(pa.compute.greater(counts["shard_count"], 1)).sort_by("shard_min")
    if len(twice):
        first = twice.slice(0, 1).to_pylist()[0]
        more = f" ({len(twice):,} keys are in two shards)" if len(twice) > 1 else ""
        names = [indices[first[key]].file.where for key in ("shard_min", "shard_max")]
        raise DataError(
            f"{names[0]}: the sample {first['key']!r} is in {names[1]} too{more}; leave one of the shards out"
        )
