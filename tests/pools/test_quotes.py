"""Quotes in tables of text: a stray one must not swallow the rows after it."""

import pytest

from homing.errors import DataError
from homing.pools import text_parts
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from packed_pools import png


@pytest.fixture
def table(tmp_path):
    """Writes lines behind the names of the columns; three pictures lie beside."""
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(7, number))

    def write(*lines, end="\n"):
        path = tmp_path / "t.csv"
        path.write_bytes(end.join(["path,label,note", *lines, ""]).encode())
        return path

    return write


ROWS = [f"{number}.png,cat,x" for number in range(4)]
STRAY = {
    "never closed": ['1.png,cat,"5 inch', *ROWS[2:]],
    "closed by another text": ['1.png,cat,"5 inch', '2.png,dog,"small"', ROWS[3]],
    "closed in the midst": ['1.png,cat,"5 inch', '2.png,dog,7" long', ROWS[3]],
    "more than a cell holds": ['1.png,cat,"5 inch', *(f"{number}.png,cat,{'y' * 50_000}" for number in range(5))],
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("whole", [1 << 27, 10], ids=["held", "by column"])
@pytest.mark.parametrize("lines", STRAY.values(), ids=STRAY)
def test_a_quote_that_would_swallow_rows_is_told_with_its_line(table, monkeypatch, lines, whole, end):
    monkeypatch.setattr(text_parts, "_WHOLE", whole)
    path = table(ROWS[0], *lines, end=end)
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as a table: line 3 opens a quote that .*; close it"):
        read_pool(PoolSpec(path=str(path)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_sound_texts_of_several_lines_and_quotes_that_swallow_nothing_are_read(table, end):
    notes = ['"two\nlines, and a ""quote"""', '5" wide', '"a" b', f'"{"long" * 50_000}"']
    path = table(*(f"{number}.png,cat,{note}" for number, note in enumerate(notes)), "", end=end)
    pool = read_pool(PoolSpec(path=str(path)))
    assert pool.columns["note"] == ['two\nlines, and a "quote"', '5" wide', "a b", "long" * 50_000]


@pytest.mark.parametrize("name", ["t.csv", "metadata.csv"])
def test_two_quotes_that_may_have_swallowed_rows_are_doubted(table, tmp_path, name):
    path = table('0.png,cat,"5 inch', "1.png,cat,x", '2.png,cat,6 inch"', ROWS[3])
    path = path.rename(tmp_path / name).parent if name == "metadata.csv" else path
    pool = read_pool(PoolSpec(path=str(path), image_column="path"))
    assert list(pool.ids) == ["0.png", "3.png"]
    (warning, *_) = pool.read_as[0].warnings
    assert "1 row is of several lines that each could be one (first: line 2)" in warning


@pytest.mark.parametrize("note", ['"first\nsecond, with a comma"', '"one, two\nthree, four, five"', '"\n"'])
def test_ordinary_texts_of_several_lines_are_not_doubted(table, note):
    path = table(f"0.png,cat,{note}", *ROWS[1:])
    assert read_pool(PoolSpec(path=str(path))).read_as[0].warnings == ()
