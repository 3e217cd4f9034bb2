"""Tables of text, `.jsonl`, as parts of a table: an object a line; of each only what it has is held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.remote_text import RemoteText
from homing.pools.text_lines import LONGEST_LINE, lines_of
from homing.pools.text_parts import TextPart, telling
from homing.pools.texts import Texts

JSONL = (".jsonl", ".ndjson")
_BATCH = 50_000  # lines that are Python objects at a time


class JsonlPart(TextPart):
    """A file of JSON objects, one a line. Numbers, dates and true or false stay as they are written; null is empty.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | RemoteText) -> None:
        self._nested: dict[str, DataError] = {}
        with telling(path):
            self.num_rows, self._cells = _read(path, self._nested)
        if isinstance(path, RemoteText):
            path.let_go()
        super().__init__(path, list(self._cells))

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column; raises DataError where it holds more than texts and numbers."""
        if name in self._nested:
            raise self._nested[name]
        cells = self._cells[name]
        texts = pa.chunked_array([one.texts for one in cells])
        if len(texts) == self.num_rows:
            return texts
        places = np.full(self.num_rows, -1, np.int64)
        places[np.concatenate([np.asarray(one.rows, np.int64) for one in cells])] = np.arange(len(texts))
        return pa.chunked_array([Texts(texts.take(pa.array(places, mask=places < 0))).plain()])


class _Cells(NamedTuple):
    """Those of a column that some lines have: their rows, and their texts."""

    rows: range | npt.NDArray[np.int64]
    texts: pa.Array


def _read(path: Path | RemoteText, nested: dict[str, DataError]) -> tuple[int, dict[str, list[_Cells]]]:
    """How many rows there are, and the cells of each column."""
    found: dict[str, list[_Cells]] = {}
    num_rows = 0
    with path.open(encoding="utf-8-sig") as file:
        numbered = enumerate(lines_of(file, path), start=1)
        while lines := list(_batch(numbered)):
            rows = [_object(line, number, path, nested) for number, line in lines if not line.isspace()]
            cells: dict[str, tuple[list[int], list[str]]] = {}
            for row, one in enumerate(rows, start=num_rows):
                for name, text in one.items():
                    places, texts = cells.setdefault(name, ([], []))
                    places.append(row)
                    texts.append(text)
            for name, (places, texts) in cells.items():
                is_whole = len(places) == len(rows)
                held = range(num_rows, num_rows + len(rows)) if is_whole else np.array(places, np.int64)
                found.setdefault(name, []).append(_Cells(held, pa.array(texts, pa.large_string())))
            num_rows += len(rows)
    if not found:
        raise DataError(f"{path}: cannot be read as a table: it holds no rows")
    return num_rows, found


def _batch(numbered: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Some lines: not many, and not long ones together."""
    length = 0
    for number, line in islice(numbered, _BATCH):
        yield number, line
        length += len(line)
        if length > LONGEST_LINE:
            return


def _object(line: str, number: int, path: Path | RemoteText, nested: dict[str, DataError]) -> dict[str, str]:
    where = f"{path}: cannot be read as a table: line {number}"
    try:
        pairs = json.loads(line, parse_int=_Typed, parse_float=_Typed, object_pairs_hook=Pairs)
    except ValueError as error:
        raise DataError(f"{where} is no JSON object ({error})") from None
    if not isinstance(pairs, Pairs):
        raise DataError(f"{where} is no JSON object, found {line.strip()[:40]!r}")
    cells = {}
    for name, value in pairs:
        try:
            cells[name] = _cell(value, name, where)
        except DataError as error:  # of a column that may never be asked for
            nested.setdefault(name, error)
            cells[name] = ""
    if len(cells) < len(pairs):
        raise DataError(f"{path}: line {number}: a column occurs twice; columns: {quoted(name for name, _ in pairs)}")
    return cells


class Pairs(tuple[tuple[str, Any], ...]):
    """An object of a JSON text, with doubled keys as they are."""

    def of(self, key: str) -> list[Any]:
        """The values of a key."""
        return [value for name, value in self if name == key]


class _Typed(str):
    """A number as it was typed."""


def _cell(value: Any, name: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)  # Infinity
    if isinstance(value, Pairs) and isinstance(dict(value).get("path"), str) and dict(value).get("bytes") is None:
        return str(dict(value)["path"])  # an image, as datasets writes it
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)  # labels of an image that has several, or none
    raise DataError(f"{where}: {name[:40]!r} holds a list or an object; texts, numbers and lists of them are read")
