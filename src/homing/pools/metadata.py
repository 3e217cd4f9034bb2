"""`metadata.csv`, `.jsonl`, `.parquet` beside images: columns of texts, as they were written."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.columns import Columns
from homing.pools.suffixes import METADATA
from homing.pools.texts import Texts

_BATCH = 50_000  # lines of JSON that are Python objects at a time
_BLOCK = 1 << 24  # bytes of a CSV file read at a time; a row has to fit
_ESCAPED = r"^'('*[=+\-@\t\r])"
_OURS = ("sample_id", "rate")  # and copy or copies: columns of a CSV that `homing corpus` wrote


def metadata_of(root: Path) -> Path | None:
    """The metadata file of an image folder.

    Raises:
        DataError: There are several, so that it is open which one holds.
    """
    found = [root / name for name in METADATA if (root / name).is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root}: holds {names}; one of them has to hold: remove or rename the others")
    return found[0] if found else None


def read_metadata(path: Path) -> Columns:
    """All columns of a metadata file; a table in parquet is read column by column when asked.

    Raises:
        DataError: It cannot be read, or a column occurs twice.
    """
    if path.suffix == ".parquet":
        from homing.pools.tables import open_parquet

        table = open_parquet([path], path, what="a table")
        return Columns({name: _reader(table.texts, name) for name in table.names})
    try:
        columns = _read_csv(path) if path.suffix == ".csv" else _read_jsonl(path)
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path}: cannot be read as a table: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as a table: {error}; save it as UTF-8") from None
    except Exception as error:  # pyarrow raises many kinds on damaged files
        raise DataError(f"{path}: cannot be read as a table: {_one_line(error)}") from error
    return Columns.of(columns)


def _reader(texts: Callable[[str], Texts], name: str) -> Callable[[], Texts]:
    return lambda: texts(name)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _read_csv(path: Path) -> dict[str, Texts]:
    from pyarrow import csv as arrow_csv

    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file), [])
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise DataError(f"{path}: its columns seem to be separated by {other!r}; save it with commas")
    _check_names(path, names)
    # every cell as text: a class called 01, a null or a true stays what was written
    options = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(block_size=_BLOCK),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=options,
    )
    _check_names(path, table.column_names)
    columns = {name: Texts(table.column(name)) for name in table.column_names}
    if all(name in columns for name in _OURS) and ("copy" in columns or "copies" in columns):
        return {re.sub(_ESCAPED, r"\1", name): _without_apostrophes(texts) for name, texts in columns.items()}
    return columns


def _without_apostrophes(texts: Texts) -> Texts:
    """What `homing corpus` put in front of texts that a spreadsheet would take for a formula, taken away again."""
    if not pc.any(pc.match_substring_regex(texts.plain(), _ESCAPED)).as_py():
        return texts
    return Texts(pc.replace_substring_regex(texts.plain(), _ESCAPED, r"\1"))


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column occurs twice; columns: {quoted(names)}")


def _read_jsonl(path: Path) -> dict[str, Texts]:
    """One object a line. Numbers, dates and true or false stay as they are written; null and NaN are empty."""
    parts: list[tuple[int, dict[str, pa.Array]]] = []
    with path.open(encoding="utf-8-sig") as file:
        numbered = enumerate(file, start=1)
        while lines := list(islice(numbered, _BATCH)):
            rows = [_object(line, number, path) for number, line in lines if not line.isspace()]
            names = dict.fromkeys(name for row in rows for name in row)
            cells = {name: pa.array([row.get(name, "") for row in rows], pa.large_string()) for name in names}
            parts.append((len(rows), cells))
    names = dict.fromkeys(name for _, cells in parts for name in cells)
    if not names:
        raise DataError(f"{path}: cannot be read as a table: it holds no rows")
    return {
        name: Texts.concat(
            [Texts(cells[name]) if name in cells else Texts.constant("", num) for num, cells in parts if num]
        )
        for name in names
    }


def _object(line: str, number: int, path: Path) -> dict[str, str]:
    where = f"{path}: cannot be read as a table: line {number}"
    try:
        pairs = json.loads(line, parse_int=_Typed, parse_float=_Typed, object_pairs_hook=_Pairs)
    except ValueError as error:
        raise DataError(f"{where} is no JSON object ({error})") from None
    if not isinstance(pairs, _Pairs):
        raise DataError(f"{where} is no JSON object, found {line.strip()[:40]!r}")
    cells = {name: _cell(value, name, where) for name, value in pairs}
    if len(cells) < len(pairs):
        raise DataError(f"{path}: line {number}: a column occurs twice; columns: {quoted(name for name, _ in pairs)}")
    return cells


class _Pairs(list[tuple[str, Any]]):
    """An object of a JSON text, with doubled keys as they are."""


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
    if isinstance(value, list) and not isinstance(value, _Pairs) and all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)  # labels of an image that has several, or none
    raise DataError(f"{where}: {name[:40]!r} holds a list or an object; texts, numbers and lists of them are read")
