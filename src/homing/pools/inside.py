"""Paths that a table names, as paths inside the folder where they begin: none leads out of it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Container
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow.compute as pc

from homing.errors import DataError
from homing.pools.files import leads_out
from homing.pools.texts import Texts

_SHOWN = 200  # letters of a cell in a message: it may hold a whole picture as text
_ODD_PATH = r"^$|^/|\x00|//|/$|(^|/)\.\.?(/|$)"  # what is more than names with a slash between them


def paths_inside(
    root: Path | str, texts: Texts, table: Path | str, column: str, listed: Container[str] | None = None
) -> Texts:
    """Cells of a table as paths inside of a folder; an absolute path that lies in it is one, too.

    What is not there, or points outside, stays as it is written: it is a bad image, told with the others.

    Args:
        root: The folder, or the URL of it.
        texts: The cells.
        table: What they come from, for messages.
        column: Its column, for messages.
        listed: Paths of what lies in it; default: it is looked up on this machine.

    Raises:
        DataError: None of them names a file that is there.
    """
    start, files = _start(root), plain_paths(root, texts)
    plain = files.plain()

    def is_there(file: str) -> bool:
        return not leads_out(file) and (os.path.lexists(start + file) if listed is None else file in listed)

    accented = pc.not_equal(pc.binary_length(plain), pc.cast(pc.utf8_length(plain), pc.binary_length(plain).type))
    rows = np.flatnonzero(accented.to_numpy(zero_copy_only=False)).tolist()
    lost = (row for row in rows if not is_there(files[row]))
    other = {row: form for row in lost if (form := _other_form(files[row], is_there)) is not None}
    if len(files) and not other and not any(map(is_there, files)):  # the first one, mostly
        why = _wrong(files[0], root, column)
        raise DataError(f"{table}: none of its {len(files):,} rows names an image; row 0: {why}")
    return Texts(other.get(row, file) for row, file in enumerate(files)) if other else files


def plain_paths(root: Path | str, texts: Texts) -> Texts:
    """Cells of a table as paths that begin at a folder, or its URL, where they lie in it; others as they are."""
    if not pc.any(pc.match_substring_regex(texts.plain(), _ODD_PATH)).as_py():
        return texts
    start = _start(root)
    return Texts(_plain_path(text, start) for text in texts)


def _start(root: Path | str) -> str:
    return f"{root}/" if isinstance(root, str) else f"{os.path.abspath(root)}{os.sep}"


def numbered(files: Texts) -> Texts:
    """The same, with `row-N` for a row that names no file."""
    if not pc.any(pc.equal(pc.binary_length(files.plain()), 0)).as_py():
        return files
    return Texts(file or f"row-{row}" for row, file in enumerate(files))


def _plain_path(text: str, start: str) -> str:
    inside = text.removeprefix(start)
    return inside if leads_out(inside) or "://" in inside else PurePosixPath(inside).as_posix()


def _other_form(file: str, is_there: Callable[[str], bool]) -> str | None:
    """The same name in the Unicode form in which a file is there: macOS writes an accent apart from its letter."""
    forms = (unicodedata.normalize(form, file) for form in ("NFC", "NFD"))
    return next((form for form in forms if form != file and is_there(form)), None)


def _wrong(file: str, root: Path | str, column: str) -> str:
    if leads_out(file):
        remedy = "move the file there, place a link, or" if column == "file_name" else "name with root the folder, or"
        return f"{column} {file!r} points outside its folder ({root}); only paths inside are read: {remedy} correct it"
    hint = "; write / between folders" if "\\" in file else ""
    begin = "" if column == "file_name" else ", set root to the folder where paths begin"
    shown = file if len(file) <= _SHOWN else f"{file[:_SHOWN]}..."
    return f"{column} {shown!r} names no file in {root}; correct it{begin}, or leave the row out{hint}"
