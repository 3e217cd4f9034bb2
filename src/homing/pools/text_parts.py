"""Tables of text, `.csv` and `.tsv`, as parts of a table: columns of texts, as they were written."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.files import check_regular
from homing.pools.formulas import unguarded_texts
from homing.pools.quotes import check_quotes
from homing.pools.remote_text import RemoteText
from homing.pools.table_parts import Opened
from homing.pools.text_lines import LONGEST_LINE, lines_of

CSV = (".csv", ".tsv")
SEPARATORS = {",": ",", ";": ";", "tab": "\t", "|": "|"}
"""What may separate cells: as a recipe says it, and as it stands in the file."""
_BLOCK = LONGEST_LINE  # bytes of a CSV file read at a time; a row has to fit
_WHOLE = 1 << 27  # bytes of a CSV file that is held; of a larger one a column is read when it is asked for
_WIDE = 30_000  # columns that are held: each takes some 10 kB, however few its cells
_SNIFFED = 20  # rows that say what separates cells
_PATHS = "file_name"  # in such a one: paths get ./ in front, which stays
_OURS = ("sample_id", "rate")  # and copy or copies: columns of a CSV that `homing corpus` wrote


class TextPart:
    """A file whose columns are texts; images are never in it, only named."""

    def __init__(self, path: Path | RemoteText, names: Sequence[str]) -> None:
        if len(set(names)) < len(names):
            raise DataError(f"{path}: a column occurs twice; columns: {quoted(names)}")
        self.path, self._state = path, Opened(path) if isinstance(path, Path) else path
        self.check, self.state = self._state.check, self._state.state
        self.schema = pa.schema([(name, pa.large_string()) for name in names])

    num_rows: int

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column."""
        raise NotImplementedError

    def row(self, name: str, number: int) -> pa.Scalar | None:
        """None: columns are held."""
        return None

    def starts(self, name: str) -> npt.NDArray[np.int64]:
        """One block: [0, rows]."""
        return np.array([0, self.num_rows], np.int64)

    def block(self, name: str, number: int) -> pa.ChunkedArray:
        """The whole column."""
        return self.column(name)

    def num_nulls(self, name: str, field: str) -> int | None:
        """None: texts have no fields."""
        return None

    def close(self) -> None:
        """Nothing is open."""


class CsvPart(TextPart):
    """A CSV file. Columns are held where it is small, else read one by one.

    Args:
        path: The file.
        separator: Between cells; default: found out.
    """

    def __init__(self, path: Path | RemoteText, separator: str | None = None) -> None:
        with telling(path):
            self.separator = separator or _sniffed(path)
            with path.open(encoding="utf-8-sig", newline="") as file:
                raw = next(csv.reader(lines_of(file, path), delimiter=self.separator), [])
                self._is_bare = not file.read(1)  # a first line and no more, perhaps without its end
        if not raw:
            raise DataError(f"{path}: cannot be read as a table: it is empty; the first line names the columns")
        self._is_ours = all(name in raw for name in _OURS) and ("copy" in raw or "copies" in raw)
        names = unguarded_texts(pa.array(raw, pa.string())).to_pylist() if self._is_ours else raw
        super().__init__(path, names)
        self._raw = dict(zip(names, raw, strict=True))
        size = path.stat().st_size if isinstance(path, Path) else len(path.data)
        is_small = size <= _WHOLE and len(raw) <= _WIDE
        self._held = self._read(raw if is_small else raw[:1])
        self.num_rows = int(self._held.num_rows)
        with telling(path):
            self.doubt = check_quotes(path, self.separator, self.num_rows)
        if is_small and isinstance(path, RemoteText):
            path.let_go()

    def column(self, name: str, field: str | None = None) -> pa.ChunkedArray:
        """A whole column."""
        raw = self._raw[name]
        if raw in self._held.column_names:
            found = self._held.column(raw)
        else:
            self.check()
            found = self._read([raw]).column(raw)
        return unguarded_texts(found) if self._is_ours and name != _PATHS else found

    def _read(self, names: Sequence[str]) -> pa.Table:
        from pyarrow import csv as arrow_csv

        # every cell as text: a class called 01, a null or a true stays what was written
        kinds = dict.fromkeys(names, pa.string())
        if self._is_bare:
            return pa.table({name: pa.array([], pa.string()) for name in names})
        with telling(self.path):
            return arrow_csv.read_csv(
                self.path if isinstance(self.path, Path) else pa.BufferReader(self.path.data),
                read_options=arrow_csv.ReadOptions(block_size=_BLOCK, use_threads=False),  # so rows have numbers
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True, delimiter=self.separator),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=kinds, include_columns=list(names), strings_can_be_null=False
                ),
            )


def _sniffed(path: Path | RemoteText) -> str:
    """What separates cells: that by which the first rows have the same, and the most, cells."""
    counts = {}
    for separator in "\t,;|" if path.suffix.lower() == ".tsv" else ",;\t|":
        widths, is_sound = [], True
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                for row in islice(csv.reader(lines_of(file, path), delimiter=separator), _SNIFFED):
                    widths += [len(row)] if row else []
            except csv.Error:  # a cell without end, as every other separator makes of some quotes
                is_sound = False
        width = widths[0] if widths else 0
        counts[separator] = (len(set(widths)) == 1 and width > 1, is_sound, width)
    return max(counts, key=counts.__getitem__)


@contextmanager
def telling(path: Path | RemoteText) -> Iterator[None]:
    """What damaged files raise, as one sentence; what is no file at all is not opened."""
    try:
        if isinstance(path, Path):
            check_regular(path)
        yield
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path}: cannot be read as a table: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as a table: {error}; save it as UTF-8") from None
    except Exception as error:  # pyarrow raises many kinds on damaged files
        raise DataError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}") from error
