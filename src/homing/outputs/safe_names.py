"""Names from a pool made safe: for file systems, and for spreadsheets that would run a cell as a formula."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from homing.pools.formulas import begins_formula, guarded

_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
_LONGEST = 80  # characters: well below 255 bytes also where each takes three


def safe_name(text: str) -> str:
    """A text as the name of a file or folder: letters, digits, `_`, `-`, `.` and spaces; never hidden, never a device.

    A text that had to be changed gets a piece of its digest, so that two texts never share a name.
    """
    plain = re.sub(r"[^\w.\- ]", "_", text).strip(" .")[:_LONGEST].rstrip(" .")
    if plain == text and plain.split(".")[0].lower() not in _DEVICES:
        return text
    return f"{plain or '_'}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def safe_cell(text: str) -> str:
    """A text for a CSV file: an apostrophe before whatever a spreadsheet would take for a formula.

    One more where there are some already, so that it can be taken away again: pools read such a table as it was meant.
    """
    return guarded(text)


def safe_path_cell(path: str) -> str:
    """The same for a path, which stays the path that it is: `./` in front."""
    return f"./{path}" if begins_formula(path) else path


def file_stem(sample_id: str) -> str:
    """What of a sample's id to show in a file's name."""
    return safe_name(PurePosixPath(sample_id).stem)


def csv_line(cells: Sequence[Any]) -> str:
    """A line of a CSV file; a cell that breaks lines, be it by a carriage return alone, stands in quotes."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)  # with its own end of lines: of the others it quotes what is in that alone
    return line.getvalue().removesuffix("\r\n") + "\n"
