"""`metadata.csv`, `.jsonl`, `.parquet` beside images: a table of which all columns are texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from homing.errors import DataError
from homing.pools.columns import Columns
from homing.pools.suffixes import METADATA
from homing.pools.tables import Table, open_files
from homing.pools.texts import Texts


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


def read_metadata(path: Path, separator: str | None = None) -> tuple[Columns, tuple[str, ...]]:
    """All columns of a metadata file, read when they are asked for, and what may have been meant otherwise.

    Args:
        path: The file.
        separator: Between the cells of a CSV file; default: found out.

    Raises:
        DataError: It cannot be read, or a column occurs twice.
    """
    table = open_files([path], path, separator=separator, what="a table")
    return columns_of(table), tuple(f"{path.name}: {text}" for text in table.warnings)


def columns_of(table: Table) -> Columns:
    """The columns of a table but those of images, read when they are asked for."""
    return Columns({name: _reader(table, name) for name in table.names})


def _reader(table: Table, name: str) -> Callable[[], Texts]:
    return lambda: table.texts(name)
