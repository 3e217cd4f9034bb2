"""Columns of a table as texts: class labels by their names, numbers as Python writes them, NaN as nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.texts import Texts

_PIECE = 65_536
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)


def texts_of(values: pa.ChunkedArray, class_names: Sequence[str] | None, where: str) -> Texts:
    """A column's values as texts; empty ones for null and NaN.

    Args:
        values: The column.
        class_names: Names of the classes whose numbers it holds, where it does.
        where: What to call it in messages.

    Raises:
        DataError: It holds no texts or numbers, or a number that no class has.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.unify_dictionaries()
        return Texts.concat([_of_dictionary(chunk, class_names, where) for chunk in values.chunks])
    if class_names is not None and pa.types.is_integer(kind):
        return Texts.concat([_class_names(chunk, class_names, where) for chunk in values.chunks])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            values.validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"{where} holds texts that are not UTF-8; the file is damaged, write it again") from error
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return Texts(values.cast(pa.large_string()))
    if pa.types.is_null(kind):
        return Texts.constant("", len(values))
    if is_list_of_labels(kind):
        return Texts.concat([_lists(chunk, class_names, where) for chunk in values.chunks])
    if pa.types.is_nested(kind) or any(is_such(kind) for is_such in _BYTES):
        raise DataError(f"{where} holds values of the type {kind}; texts or numbers are wanted")
    if pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return Texts.concat([_of_dictionary(chunk.dictionary_encode(), None, where) for chunk in values.chunks])
    return Texts.concat([_as_python(chunk) for chunk in values.chunks])


def stated_classes(feature: Any, where: str) -> list[str] | None:
    """Names of the classes whose numbers a column holds, or lists of it, where datasets says that it does.

    Args:
        feature: What it says of the column.
        where: What to call the column in messages.

    Raises:
        DataError: The names are no list of texts.
    """
    while True:
        if isinstance(feature, list) and len(feature) == 1:  # as it was written before version 4
            feature = feature[0]
        elif isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
            feature = feature.get("feature")
        else:
            break
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel" or feature.get("names") is None:
        return None
    names = feature["names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{where} holds numbers of classes whose names are {str(names)[:40]!r}, as datasets noted them; a list of"
            " texts is wanted: write the table again"
        )
    return names


def is_list_of_labels(kind: pa.DataType) -> bool:
    """Whether values are lists of texts or of whole numbers."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_integer(inner))


def _lists(values: pa.Array, class_names: Sequence[str] | None, where: str) -> Texts:
    """Lists as JSON texts; an empty text for null, or for a list that holds a null."""
    pieces = []
    for start in range(0, len(values), _PIECE):
        piece = values.slice(start, _PIECE)
        items = iter(texts_of(pa.chunked_array([piece.flatten()]), class_names, where))
        lengths = pc.fill_null(pc.list_value_length(piece), -1).to_pylist()
        lists = [None if length < 0 else [next(items) for _ in range(length)] for length in lengths]
        texts = ["" if one is None or "" in one else json.dumps(one, ensure_ascii=False) for one in lists]
        pieces.append(Texts(texts))
    return Texts.concat(pieces)


def _of_dictionary(array: pa.DictionaryArray, class_names: Sequence[str] | None, where: str) -> Texts:
    """The same dictionary with texts for values."""
    kind = array.dictionary.type
    if pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        names = _as_python(array.dictionary)
    else:
        names = texts_of(pa.chunked_array([array.dictionary]), class_names, where)
    return Texts(pa.DictionaryArray.from_arrays(array.indices, names.plain()))


def _class_names(values: pa.Array, names: Sequence[str], where: str) -> Texts:
    codes = np.asarray(pc.fill_null(values.cast(pa.int64()), -1).to_numpy(zero_copy_only=False))
    if len(codes) and codes.max() >= len(names):
        raise DataError(
            f"{where} holds {codes.max()}, but names only {len(names)} classes ({', '.join(names[:8])}...);"
            " write the table again with all names"
        )
    return Texts.encoded(np.where(codes < 0, len(names), codes).astype(np.int32), [*names, ""])


def _as_python(values: pa.Array) -> Texts:
    """As Python writes them: 1.0, True, 2024-01-01 00:00:00."""
    piece = _with_nanoseconds if values.type == pa.time64("ns") else _piece
    return Texts.concat([piece(values.slice(start, _PIECE)) for start in range(0, len(values), _PIECE)])


def _piece(values: pa.Array) -> Texts:
    return Texts([_text(value) for value in values.to_pylist()])


def _with_nanoseconds(values: pa.Array) -> Texts:
    """Times of a day; nanoseconds, which Python's have not, as Arrow writes them."""
    whole = values.cast(pa.time64("us"), safe=False)
    is_whole = pc.equal(whole.cast(values.type), values)
    return Texts(pc.if_else(is_whole, _piece(whole).plain(), values.cast(pa.large_string())))


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
