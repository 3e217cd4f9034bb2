"""Quotes of a CSV file that swallow the lines after them: found, where a row is of more lines than its text means."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from homing.errors import DataError
from homing.pools.remote_text import RemoteText
from homing.pools.text_lines import lines_of

_PIECE = 1 << 22  # characters that are counted at a time
_REMEDY = "close it, or write a quote that is part of a text twice, in a cell in quotes"


def check_quotes(path: Path | RemoteText, separator: str, num_rows: int) -> None:
    """Whether every row of several lines is a sound one: a stray quote makes one out of all rows up to the next quote.

    Args:
        path: The CSV file.
        separator: Between its cells.
        num_rows: As many were read, the first line not counted.

    Raises:
        DataError: A quote is closed nowhere, or in the midst of a cell.
    """
    if _num_lines(path) <= num_rows + 1:
        return
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
                _check_row(path, separator, lines.last, rows.line_num - len(lines.last) + 1)


class _Remembered:
    """Lines, those of the row that is being read among them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.last = iter(lines), list[str]()

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.last.append(line)
            yield line


def _check_row(path: Path | RemoteText, separator: str, lines: list[str], first: int) -> None:
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        next(reader)
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
