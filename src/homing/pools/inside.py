"""Paths that a table names, as paths inside the folder where they begin: none leads out of it."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.files import leads_out
from homing.pools.texts import Texts

_SHOWN = 200  # letters of a cell in a message: it may hold a whole picture as text
_ODD_PATH = r"^$|^/|\x00|//|/$|(^|/)\.\.?(/|$)"  # what is more than names with a slash between them


def paths_inside(root: Path, texts: Texts, table: Path | str, column: str) -> Texts:
    """Cells of a table as paths inside of a folder; an absolute path that lies in it is one, too.

    What is not there, or points outside, stays as it is written: it is a bad image, told with the others.

    Args:
        root: The folder.
        texts: The cells.
        table: What they come from, for messages.
        column: Its column, for messages.

    Raises:
        DataError: None of them names a file that is there.
    """
    start, odd = f"{os.path.abspath(root)}{os.sep}", pc.match_substring_regex(texts.plain(), _ODD_PATH)
    files = Texts(_plain_path(text, start) for text in texts) if pc.any(odd).as_py() else texts
    plain = files.plain()
    accented = pc.not_equal(pc.binary_length(plain), pc.cast(pc.utf8_length(plain), pc.binary_length(plain).type))
    rows = np.flatnonzero(accented.to_numpy(zero_copy_only=False)).tolist()
    lost = (row for row in rows if not _is_there(files[row], start))
    other = {row: form for row in lost if (form := _other_form(files[row], start)) is not None}
    if len(files) and not other and not any(_is_there(file, start) for file in files):  # the first one, mostly
        why = _wrong(files[0], root, column)
        raise DataError(f"{table}: none of its {len(files):,} rows names an image; row 0: {why}")
    return Texts(other.get(row, file) for row, file in enumerate(files)) if other else files


def _is_there(file: str, start: str) -> bool:
    return not leads_out(file) and os.path.lexists(start + file)


def numbered(files: Texts) -> Texts:
    """The same, with `row-N` for a row that names no file."""
    if not pc.any(pc.equal(pc.binary_length(files.plain()), 0)).as_py():
        return files
    return Texts(file or f"row-{row}" for row, file in enumerate(files))


def _plain_path(text: str, start: str) -> str:
    inside = text.removeprefix(start)
    return inside if leads_out(inside) or "://" in inside else PurePosixPath(inside).as_posix()


def _other_form(file: str, start: str) -> str | None:
    """The same name in the Unicode form in which a file is there: macOS writes an accent apart from its letter."""
    forms = () if leads_out(file) else (unicodedata.normalize(form, file) for form in ("NFC", "NFD"))
    return next((form for form in forms if form != file and os.path.lexists(start + form)), None)


def _wrong(file: str, root: Path, column: str) -> str:
    if leads_out(file):
        remedy = "move the file there, place a link, or" if column == "file_name" else "name with root the folder, or"
        return f"{column} {file!r} points outside its folder ({root}); only paths inside are read: {remedy} correct it"
    hint = "; write / between folders" if "\\" in file else ""
    begin = "" if column == "file_name" else ", set root to the folder where paths begin"
    shown = file if len(file) <= _SHOWN else f"{file[:_SHOWN]}..."
    return f"{column} {shown!r} names no file in {root}; correct it{begin}, or leave the row out{hint}"
