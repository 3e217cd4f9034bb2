"""Tar shards as WebDataset writes them, as a pool: a sample is the members that share a name up to its first dot."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from homing.errors import DataError
from homing.pools.archive_images import NONE, ArchiveImages
from homing.pools.class_names import quoted
from homing.pools.columns import Columns
from homing.pools.folder import UNLABELLED, column
from homing.pools.formats import SUFFIXES
from homing.pools.json_lines import Pairs
from homing.pools.layouts import split_in
from homing.pools.packed_folders import classes_by_folder
from homing.pools.pool import Pool, ReadAs
from homing.pools.stored_files import StoredFile
from homing.pools.tar_index import TarIndex, indices_of, no_doubles
from homing.pools.texts import Texts

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec


@dataclass(frozen=True)
class _Samples:
    """What the members of one shard come to.

    Attributes:
        index: Of the shard.
        keys: Name of each sample up to the first dot, with its folder.
        image: Row of the index for each sample's image, int64; -1 where it has none.
        others: Suffix (without the first dot) → number of each sample that has one → its row of the index. There may
            be as many suffixes as samples.
    """

    index: TarIndex
    keys: pa.Array
    image: npt.NDArray[np.int64]
    others: dict[str, dict[int, int]]


def read_shards(name: str, shards: Sequence[StoredFile], spec: PoolSpec) -> Pool:
    """The pool that tar files are.

    Args:
        name: Of the pool.
        shards: In their order.
        spec: Of the recipe.

    Raises:
        DataError: A shard cannot be read, two hold the same sample, or a column is missing.
        OSError: A shard cannot be read.
    """
    parts = [_samples(index) for index in indices_of(shards)]
    no_doubles([part.index for part in parts], [part.keys for part in parts])
    keys = Texts(pa.chunked_array([part.keys for part in parts], pa.large_string()))
    columns = Columns({key: _reader(parts, key) for key in _column_names(parts)})
    where, warnings = spec.path, _warnings(parts, spec)
    used = {"image": ", ".join(sorted({_suffix(part, row) for part in parts for row in part.image[:1]}) or "none")}
    if spec.labels == "none" or spec.label_columns:
        labels = Texts.constant(UNLABELLED, len(keys))
    elif (wanted := spec.label_column or _label_column(parts, columns)) is not None:
        labels, used["label"] = column(columns, wanted, where, "label"), wanted
    elif all("/" in key for key in keys):
        labels, used["label"], doubts = classes_by_folder(keys, where)
        warnings += doubts
    else:
        labels = Texts.constant("", len(keys))
    ids, used["id"] = keys, "the key: the name up to its first dot"
    if spec.id_column:
        ids, used["id"] = column(columns, spec.id_column, where, "id"), spec.id_column
    if spec.group_column:
        column(columns, spec.group_column, where, "group")
        used["group"] = spec.group_column
    kind = f"tar shards ({len(shards):,})" if len(shards) > 1 else "tar shard"
    images, sources = _images(parts), Texts.constant(name, len(keys))
    version = hashlib.sha256(images.sizes.tobytes()).hexdigest()[:12]  # another picture has another size, mostly
    read_as = ReadAs(name, kind, used, _unread(parts), tuple(warnings), version)
    return Pool(name, ids, labels, images, sources, columns, np.arange(len(keys)), (read_as,))


def _samples(index: TarIndex) -> _Samples:
    numbers: dict[str, int] = {}
    found: dict[str, dict[int, int]] = {}
    for row, name in enumerate(index.members["name"].to_pylist()):
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if stem.startswith("__") and stem.endswith("__"):  # WebDataset's own notes on a shard
            continue
        number = numbers.setdefault(f"{folder}{slash}{stem}", len(numbers))
        if found.setdefault(suffix.lower(), {}).setdefault(number, row) != row:
            raise DataError(f"{index.file.where}: the member {name!r} is there twice; write the shard again")
    keys = pa.array(list(numbers), pa.large_string())
    pictures = {suffix: found.pop(suffix) for suffix in [*found] if f".{_last(suffix)}" in SUFFIXES}
    return _Samples(index, keys, _one_image(index, keys, pictures), found)


def _one_image(index: TarIndex, keys: pa.Array, pictures: dict[str, dict[int, int]]) -> npt.NDArray[np.int64]:
    """The image of each sample: `jpg` before `mask.jpg`, and never one of two alike."""
    image, depth = np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.int64)
    for suffix in sorted(pictures, key=lambda suffix: suffix.count(".")):
        for number, row in pictures[suffix].items():
            if image[number] < 0:
                image[number], depth[number] = row, suffix.count(".")
            elif depth[number] == suffix.count("."):
                alike = [one for one in pictures if number in pictures[one] and one.count(".") == depth[number]]
                raise DataError(
                    f"{index.file.where}: the sample {keys[number].as_py()!r} has several images"
                    f" ({quoted(sorted(alike))}); a sample is what shares a name up to its first dot: rename, leave all"
                    " but one out, or call the others mask.png and the like"
                )
    return image


def _images(parts: Sequence[_Samples]) -> ArchiveImages:
    files: list[StoredFile] = []
    numbers: list[npt.NDArray[np.int32]] = []
    offsets: list[npt.NDArray[np.int64]] = []
    sizes: list[npt.NDArray[np.int64]] = []
    for number, part in enumerate(parts):
        files.append(part.index.file)
        members, there = part.index.members, part.image >= 0
        for name, into in (("offset", offsets), ("size", sizes)):
            values = np.full(len(there), NONE, np.int64)
            values[there] = members[name].to_numpy()[part.image[there]]
            into.append(values)
        numbers.append(np.full(len(there), number, np.int32))
    return ArchiveImages(files, np.concatenate(numbers), np.concatenate(offsets), np.concatenate(sizes))


# ---- classes and columns -------------------------------------------------------------------------------------------


def _column_names(parts: Sequence[_Samples]) -> list[str]:
    suffixes = dict.fromkeys(suffix for part in parts for suffix in part.others if _last(suffix) in ("cls", "txt"))
    return list(suffixes | dict.fromkeys(field for part in parts for field in part.index.fields))


def _label_column(parts: Sequence[_Samples], columns: Columns) -> str | None:
    order = ["label", "cls", "txt"]
    if any("cls" in part.others for part in parts):
        order.insert(0, "cls")
    return next((name for name in order if name in columns), None)


def _reader(parts: Sequence[_Samples], name: str) -> Callable[[], Texts]:
    is_suffix = any(name in part.others for part in parts)
    return lambda: Texts.concat([_texts(part, name) if is_suffix else _values(part, name) for part in parts])


def _texts(part: _Samples, suffix: str) -> Texts:
    """What the members of a suffix hold; empty for samples that have none."""
    return Texts([_decoded(part, row, text).strip() for row, text in enumerate(_held(part, suffix))])


def _values(part: _Samples, field: str) -> Texts:
    """What the `.json` members say of a field; empty for samples of which none does."""
    found = []
    for row, text in enumerate(_held(part, "json")):
        try:
            pairs = json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=Pairs) if text else Pairs()
            values = pairs.of(field)
            found.append(_cell(values[0]) if values else "")
            found[-1].encode()  # half a character is none: a ValueError
        except (ValueError, RecursionError, AttributeError):
            raise DataError(f"{_json_of(part, row)} is no JSON object of texts; write it again") from None
        if len(values) > 1:
            raise DataError(f"{_json_of(part, row)} says {field!r} twice; write it again")
    return Texts(found)


def _json_of(part: _Samples, row: int) -> str:
    return f"{part.index.file.where}: {part.keys[row].as_py()}.json"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)  # labels of an image that has several, or none
    return value if isinstance(value, str) else ""


def _held(part: _Samples, suffix: str) -> list[bytes]:
    rows = part.others.get(suffix)
    if rows is None:
        return [b""] * len(part.keys)
    places = pa.array([rows.get(number) for number in range(len(part.keys))], pa.int64())
    taken = part.index.members["text"].take(places)
    return [text or b"" for text in taken.to_pylist()]


def _decoded(part: _Samples, row: int, text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        key = part.keys[row].as_py()
        raise DataError(f"{part.index.file.where}: a text of the sample {key!r} is not UTF-8; write it again") from None


# ---- what is said of it ---------------------------------------------------------------------------------------------


def _last(suffix: str) -> str:
    return suffix.rpartition(".")[2]


def _suffix(part: _Samples, row: int) -> str:
    return "none" if row < 0 else part.index.members["name"][int(row)].as_py().rpartition("/")[2].partition(".")[2]


def _unread(parts: Sequence[_Samples]) -> dict[str, int]:
    """Suffix → members that are neither image nor text."""
    found: Counter[str] = Counter()
    for part in parts:
        for suffix, rows in part.others.items():
            if _last(suffix) not in ("cls", "txt", "json"):
                found[f".{suffix}" if suffix else ""] += len(rows)
    return dict(found)


def _warnings(parts: Sequence[_Samples], spec: PoolSpec) -> list[str]:
    found, skipped = [], Counter[str]()
    for part in parts:
        skipped.update(part.index.skipped)
    if skipped:
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in sorted(skipped.items()))
        found.append(f"members that are no plain files inside were left out: {kinds}")
    if lax := [part.index.file.name for part in parts if not part.index.has_end]:
        found.append(
            f"{quoted(lax)} ends without a tar's mark of its end; it may have been cut off between two members"
        )
    splits = sorted({split for part in parts if (split := split_in(part.index.file.name))})
    if spec.split is None and len(splits) > 1:
        found.append(f"the shards are named for the splits {', '.join(splits)}; all were read: name one with split")
    return found
