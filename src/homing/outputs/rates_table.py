"""Rates as one file, `.parquet` or `.csv`: pieces of Arrow go by, none is kept."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from homing.errors import RecipeError
from homing.outputs.artefact import open_whole
from homing.outputs.ownership import check_no_part_of_a_run
from homing.outputs.safe_names import safe_cell
from homing.pools.formulas import guarded_texts

SUFFIXES = (".parquet", ".csv")


class CsvTable:
    """As many of a parquet writer's ways as writers of rates use; texts are safe for spreadsheets, NaN is empty.

    Args:
        file: To write to.
        schema: Of all pieces; categories become texts.
    """

    def __init__(self, file: BinaryIO, schema: Any) -> None:
        import pyarrow as pa
        import pyarrow.csv

        self._kinds = {field.name: _plain(field.type) for field in schema}
        self.schema = pa.schema([(safe_cell(name), kind) for name, kind in self._kinds.items()])
        self._file = pyarrow.csv.CSVWriter(file, self.schema)

    def write_table(self, table: Any, row_group_size: int | None = None) -> None:
        """Some more rows."""
        import pyarrow as pa

        columns = [_safe(table.column(name).cast(kind)) for name, kind in self._kinds.items()]
        self._file.write_table(pa.table(columns, schema=self.schema))

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def is_table_name(path: Path) -> bool:
    """Whether a path asks for one file instead of a folder."""
    return path.suffix.lower() in SUFFIXES


def table_writer(path: Path, file: BinaryIO, schema: Any) -> Any:
    """A writer of the kind that a file's name asks for, with `write_table` and `close`."""
    import pyarrow.parquet as pq

    is_text = path.suffix.lower() == ".csv"
    return CsvTable(file, schema) if is_text else pq.ParquetWriter(file, schema, compression="zstd")


def write_pieces(path: Path, schema: Any, pieces: Iterable[Any]) -> None:
    """Write record batches into a file, which is there whole or not at all."""
    import pyarrow as pa

    with open_whole(path) as file, closing(table_writer(path, file, schema)) as writer:
        for piece in pieces:
            writer.write_table(pa.Table.from_batches([piece]).cast(schema))


def check_new_file(path: Path, *, overwrite: bool | None = None) -> None:
    """Whether a file can be made; one whose name ends in nothing is parquet.

    Args:
        path: Of the file.
        overwrite: Whether one that is there may be replaced; None: the command has no option for that.

    Raises:
        RecipeError: Its name asks for another format, it is there, its folder is not, or it is a run's own.
    """
    if path.suffix and not is_table_name(path):
        raise RecipeError(f"{path}: give a file whose name ends in {' or '.join(SUFFIXES)}")
    if path.exists() and not (overwrite and path.is_file()):
        how = ", or remove it" if overwrite is None else ", or replace a file with --overwrite"
        raise RecipeError(f"{path}: exists already; give another --output{how}")
    if not path.parent.is_dir():
        raise RecipeError(f"{path.parent}: no such folder; make it first")
    check_no_part_of_a_run(path)


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _safe(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return guarded_texts(column)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column
