"""Quotes of a CSV file that swallow the lines after them: found, where a row is of more lines than its text means."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from homing.errors import DataError
from homing.pools.remote_text import RemoteText
from homing.pools.text_lines import lines_of

_PIECE = 1 << 22  # characters that are counted at a time
_WIDTH = 3  # cells of a row: in a text, too, a line may well have one comma
_REMEDY = "close it, or write a quote that is part of a text twice, in a cell in quotes"


def check_quotes(path: Path | RemoteText, separator: str, num_rows: int) -> str | None:
    """Whether every row of several lines is a sound one: a stray quote makes one out of all rows up to the next quote.

    Args:
        path: The CSV file.
        separator: Between its cells.
        num_rows: As many were read, the first line not counted.

    Returns:
        A sentence where a sound row may be several that two stray quotes made one, else None.

    Raises:
        DataError: A quote is closed nowhere, or in the midst of a cell.
    """
    if _num_lines(path) <= num_rows + 1:
        return None
    doubtful = []
    for first, lines in _long_rows(path, separator):
        width = _check_row(path, separator, lines, first)
        if width >= _WIDTH and all(line.count(separator) == width - 1 for line in lines):
            doubtful.append(first)
    if not doubtful:
        return None
    rows = "1 row is" if len(doubtful) == 1 else f"{len(doubtful):,} rows are"
    return (
        f"{rows} of several lines that each could be one (first: line {doubtful[0]}); where a quote there is a part of"
        " the text, write it twice, in a cell in quotes"
    )


def _long_rows(path: Path | RemoteText, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of several lines: the number of the first, from 1, and all of them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _Remembered(lines_of(file, path))
        rows = csv.reader(lines, delimiter=separator)
        while True:
            lines.last.clear()
            try:
                next(rows)
            except StopIteration:
                return
            except csv.Error:  # a long cell: of one line it is no matter of quotes
                pass
            if len(lines.last) > 1:
                yield rows.line_num - len(lines.last) + 1, lines.last


class _Remembered:
    """Lines, those of the row that is being read among them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.last = iter(lines), list[str]()

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.last.append(line)
            yield line


def _check_row(path: Path | RemoteText, separator: str, lines: list[str], first: int) -> int:
    """How many cells a row has."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        return len(next(reader))
    except csv.Error as error:
        last = first + reader.line_num - 1
        if "expected after" in str(error):
            what = f"is closed in the midst of a cell of line {last}"
        else:  # the text's end, or more than a cell may hold
            what = f"nothing closes up to line {last}"
        raise DataError(
            f"{path}: cannot be read as a table: line {first} opens a quote that {what}, so that the lines between"
            f" would be lost; {_REMEDY}"
        ) from None


def _num_lines(path: Path | RemoteText) -> int:
    """How many there are at most, by whatever ends them."""
    num = 1
    with path.open(encoding="latin-1", newline="") as file:
        while piece := file.read(_PIECE):
            num += piece.count("\n") + piece.count("\r") - piece.count("\r\n")
    return num
