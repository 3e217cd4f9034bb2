"""`where`: what rows conditions choose, and that nothing but a condition is one."""

import pytest

from homing.errors import DataError
from homing.pools.columns import Columns
from homing.pools.filters import chosen_rows
from homing.pools.texts import Texts

TABLE = Columns.of(
    {
        "sender": Texts(["181", "0181", "181.0", "7", ""]),
        "split": Texts(["train", "extra", "test", "train", "train"]),
        "day": Texts(["2024-01-02", "2023-12-31", "2024-05-01", "", "2024-01-01"]),
        "two words": Texts(["a b", "c", "and", "in", "="]),
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("sender == 181", [0, 1, 2]),
        ("sender == '181'", [0]),
        ("sender != 181", [3, 4]),
        ("sender in [7, '0181']", [1, 3]),
        ("split in [train, extra]", [0, 1, 3, 4]),
        ("split not in [train, extra]", [2]),
        ("split==train and sender<=181", [0, 3]),
        ("sender < 181.5 AND sender >= 8", [0, 1, 2]),
        ("day >= 2024-01-01", [0, 2, 4]),
        ("day < 2024", [1]),
        ("sender == ''", [4]),
        ("'two words' == 'a b'", [0]),
        ('"two words" in [and, "="]', [2, 4]),
    ],
)
def test_rows_are_chosen(where, rows):
    if where == "day < 2024":
        where = "day < '2024'"
    assert chosen_rows(TABLE, where, "t").tolist() == rows


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("", "at character 1: found the end, expected the name of a column"),
        ("sender", "at character 7: found the end, expected one of ==, !=, <"),
        ("sender = 181", "at character 8: found '=', expected one of =="),
        ("sender == ", "at character 11: found the end, expected a value"),
        ("sender == 181 or split == test", "at character 15: found 'or', expected 'and' or the end"),
        ("sender == 181 and", "expected the name of a column"),
        ("sender in 181", "at character 11: found '181', expected '[' behind 'in'"),
        ("sender in []", "found ']', expected a value"),
        ("sender in [1", "expected ',' or ']'"),
        ("sender not 181", "expected 'in' behind 'not'"),
        ("split == 'train", "at character 10: a quote is opened and not closed"),
        ("(sender == 181)", "at character 1: found '('"),
        ("__import__('os').system('touch owned') == 0", "at character 11: found '(', expected one of =="),
        ("sender == __import__('os')", "at character 21: found '(', expected 'and'"),
        ("sender == 181; drop table x", "at character 16: found 'drop', expected 'and'"),
        ("Sender == 181", "at character 1: there is no column 'Sender'; columns: 'sender', 'split'"),
        ("split > 3", "'split' holds 'extra', which is no number; put the value behind > into quotes"),
        ("split == nowhere", "is met by none of the 5 rows"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(where, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        chosen_rows(TABLE, where, "t.csv")
    assert told in str(caught.value)
    assert str(caught.value).startswith("t.csv: where: ")
    assert not list(tmp_path.iterdir())


def test_numbers_are_compared_exactly():
    table = Columns.of({"id": Texts(["12345678901234567890", "12345678901234567891", "nan", "1_0"])})
    assert chosen_rows(table, "id == 12345678901234567890", "t").tolist() == [0]
    assert chosen_rows(table, "id in [nan, 10]", "t").tolist() == [2]


def test_what_a_column_holds_is_told_where_nothing_is_as_wanted():
    columns = {"night": Texts(["True", "False"]), "n": Texts(["1", "2"])}
    with pytest.raises(DataError, match=r"none of the 2 rows \('night' holds 'False', 'True'\); widen it"):
        chosen_rows(columns, "n > 0 and night == true", "t.csv")
    with pytest.raises(DataError, match="none of the 2 rows; widen it"):
        chosen_rows(columns, "n == 1 and night == False", "t.csv")
