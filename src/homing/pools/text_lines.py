"""Lines of a table of text, none of any length: a file without line ends is not held as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from homing.errors import DataError
from homing.pools.remote_text import RemoteText

LONGEST_LINE = 1 << 24
"""Characters; as many bytes a row of a CSV file may have."""


def lines_of(file: TextIO, path: Path | RemoteText) -> Iterator[str]:
    """The lines of a file from where it stands, with their ends.

    Args:
        file: Opened for reading.
        path: What it is called in messages.

    Raises:
        DataError: One is longer than any row.
    """
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise DataError(
                f"{path}: cannot be read as a table: line {number} has {LONGEST_LINE:,} characters and more, as no row"
                " has; write it again with a row a line"
            )
        yield line
