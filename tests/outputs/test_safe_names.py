"""Texts in a CSV that homing writes: no spreadsheet runs one, whatever ends a cell for it, and all come back."""

import csv
import io
import re
from contextlib import closing

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing.outputs.rates_table import CsvTable
from homing.outputs.safe_names import csv_line, safe_cell, safe_path_cell
from homing.pools.formulas import guarded_texts, unguarded_texts
from homing.pools.text_parts import CsvPart

FORMULAS = [
    "=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x", "'=1", "a;=1", 'a;"=1', "a;'=1",
    "a\n=1", "a\r\n+1", "a\t@x", ";;=1;=2", "a;－1", "\n\n=1", "'\n=1",
]  # fmt: skip
PLAIN = ["cat", "a=1", "a, -1", "'quoted'", "a;b", "a - b", "two\nlines", "ä＝", "x@y.z", '"so"', ""]


def cells_of(line: str, separator: str) -> list[str]:
    """As a spreadsheet sees a line: quotes count at the beginning of a cell alone."""
    return [cell for row in csv.reader(io.StringIO(line, newline=""), delimiter=separator) for cell in row]


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_begins_a_formula_whatever_separates_cells(text, separator):
    line = io.StringIO(newline="")
    csv.writer(line).writerow(["0.png", safe_cell(text), "0.5"])
    assert not any(re.match(r"[=+\-@＝＋－＠\t\r\n]", cell) for cell in cells_of(line.getvalue(), separator))


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", '"a"', "a,b", "plain", ""])
def test_a_cell_that_breaks_lines_breaks_no_table(text):
    lines = csv_line(["first", text]) + csv_line(["second", 2])
    assert lines.endswith("second,2\n")
    assert list(csv.reader(io.StringIO(lines, newline=""))) == [["first", text], ["second", "2"]]


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay_as_they_are(text):
    assert safe_cell(text) == text
    assert safe_path_cell(text) == text


@given(st.lists(st.one_of(st.text(), st.text("=-＝'\";\t\r\n@a")), min_size=1))
def test_every_text_comes_back(texts):
    held = pa.array(texts, pa.string())
    assert guarded_texts(held).to_pylist() == [safe_cell(text) for text in texts]
    assert unguarded_texts(guarded_texts(held)).to_pylist() == texts


def test_a_table_of_rates_comes_back_with_the_names_of_its_columns(tmp_path):
    texts = [*FORMULAS, *PLAIN]
    table = pa.table({"sample_id": texts, "rate": [0.5] * len(texts), "=group": texts, "copies": [1] * len(texts)})
    with (tmp_path / "a.csv").open("wb") as file, closing(CsvTable(file, table.schema)) as writer:
        writer.write_table(table)
    part = CsvPart(tmp_path / "a.csv")
    assert part.column("sample_id").to_pylist() == part.column("=group").to_pylist() == texts
    assert b'"\'=group"' in (tmp_path / "a.csv").read_bytes()


def test_paths_stay_paths_there_and_back(tmp_path):
    paths = [safe_path_cell(path) for path in ("=1.png", "＝1.png", "\n1.png", "a;'=1.png")]
    assert paths == ["./=1.png", "./＝1.png", "./\n1.png", "a;'=1.png"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("file_name", "sample_id", "rate", "copies"), *((path, safe_cell(path), 1, 1) for path in paths)]
        )
    part = CsvPart(tmp_path / "a.csv")
    assert part.column("file_name").to_pylist() == part.column("sample_id").to_pylist() == paths
