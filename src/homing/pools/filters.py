"""`where`: rows of a table chosen by its columns. Parsed by the grammar below, compared as values, never evaluated.

    condition ("and" condition)*
    condition: column (== | != | < | <= | > | >=) value, or column ["not"] in [value, value, ...]

A value or a column that holds a space or a sign is put into quotes. A number is compared by its value (`1` is `1.0` and
`01`), everything else, and a number in quotes, as the text that it is. An empty cell is never less or greater.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.class_names import near_misses, quoted, spelled_alike
from homing.pools.texts import Texts

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign>==|!=|<=|>=|[=<>!\[\],()])|(?P<word>[^\s\[\](),=!<>'"]+))"""
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Token(NamedTuple):
    kind: str  # quoted, sign, word, end
    text: str
    place: int  # counted from 1


@dataclass(frozen=True)
class Condition:
    """What cells of one column have to be.

    Attributes:
        column: Its name.
        sign: `in`, `not in`, `<`, `<=`, `>` or `>=`.
        values: Texts, and the numbers that they stand for; None where they are compared as texts alone.
        place: Of the column's name in the text, counted from 1.
    """

    column: str
    sign: str
    values: tuple[tuple[str, Decimal | None], ...]
    place: int

    def holds(self, cell: str) -> bool:
        """Whether a cell is as wanted.

        Raises:
            ValueError: It is no number, and is to be ordered by one.
        """
        if self.sign in ("in", "not in"):
            found = any(cell == text or _is_equal(cell, number) for text, number in self.values)
            return found == (self.sign == "in")
        ((text, number),) = self.values
        if not cell or cell.isspace():
            return False
        if number is None:
            return _COMPARE[self.sign](cell, text)
        if (own := _number(cell)) is None:
            raise ValueError(cell)
        return _COMPARE[self.sign](own, number)


def chosen_rows(columns: Mapping[str, Texts], where: str, place: object) -> npt.NDArray[np.int64]:
    """Rows of a table that meet all conditions, ascending; int64.

    Args:
        columns: Of the table, by name; only those that are named are looked at.
        where: The conditions.
        place: The table, for messages.

    Raises:
        DataError: They cannot be parsed, name a column that is not there, or order a text by a number; or no row
            meets them.
    """
    mask: npt.NDArray[np.bool_] | None = None
    unmet = ""
    for condition in parse_where(where, place):
        mine = _meets(columns, condition, f"{place}: where: {where!r}")
        mask = mine if mask is None else mask & mine
        if not mine.any() and not unmet:
            unmet = f" ({condition.column!r} holds {quoted(columns[condition.column].unique())})"
    assert mask is not None
    if not mask.any():
        raise DataError(
            f"{place}: where: {where!r} is met by none of the {len(mask):,} rows{unmet}; widen it, or leave it out"
        )
    return np.flatnonzero(mask)


def parse_where(where: str, place: object) -> list[Condition]:
    """The conditions of a text.

    Raises:
        DataError: It is none; says where and what is expected there.
    """
    tokens = _tokens(where, place)
    conditions = [_condition(tokens, where, place)]
    while (token := next(tokens)).kind != "end":
        if token.kind != "word" or token.text.lower() != "and":
            raise _wrong(where, place, token, "'and' or the end")
        conditions.append(_condition(tokens, where, place))
    return conditions


def _meets(columns: Mapping[str, Texts], condition: Condition, place: str) -> npt.NDArray[np.bool_]:
    if condition.column not in columns:
        near = [*spelled_alike([condition.column], columns), *near_misses([condition.column], columns)]
        raise DataError(
            f"{place}: at character {condition.place}: there is no column {condition.column!r};"
            f" columns: {quoted(columns) or 'none'}{f'; did you mean {near[0][1]!r}?' if near else ''}"
        )
    codes, cells = columns[condition.column].encode()
    try:
        held = np.array([condition.holds(cell) for cell in cells], np.bool_)
    except ValueError as error:
        raise DataError(
            f"{place}: at character {condition.place}: {condition.column!r} holds {str(error)[:40]!r}, which is no"
            f" number; put the value behind {condition.sign} into quotes to compare texts"
        ) from None
    return held[codes]


def _tokens(where: str, place: object) -> Iterator[_Token]:
    position = 0
    while where[position:].strip():
        found = _TOKEN.match(where, position)
        if found is None:
            at = position + len(where[position:]) - len(where[position:].lstrip())
            raise DataError(f"{place}: where: {where!r}: at character {at + 1}: a quote is opened and not closed")
        kind = str(found.lastgroup)
        text = found[kind][1:-1] if kind == "quoted" else found[kind]
        yield _Token(kind, text, found.start(kind) + 1)
        position = found.end()
    while True:
        yield _Token("end", "", len(where) + 1)


def _condition(tokens: Iterator[_Token], where: str, place: object) -> Condition:
    column, sign = next(tokens), next(tokens)
    if column.kind not in ("word", "quoted"):
        raise _wrong(where, place, column, "the name of a column")
    words = sign.text.lower() if sign.kind == "word" else ""
    if words == "not":
        after = next(tokens)
        if after.kind != "word" or after.text.lower() != "in":
            raise _wrong(where, place, after, "'in' behind 'not'")
        words = "not in"
    if words in ("in", "not in"):
        return Condition(column.text, words, tuple(_list(tokens, where, place)), column.place)
    if sign.kind == "sign" and sign.text in ("==", "!="):
        word = "in" if sign.text == "==" else "not in"
        return Condition(column.text, word, (_value(next(tokens), where, place),), column.place)
    if sign.kind == "sign" and sign.text in _COMPARE:
        return Condition(column.text, sign.text, (_value(next(tokens), where, place),), column.place)
    raise _wrong(where, place, sign, "one of ==, !=, <, <=, >, >=, in, not in")


def _list(tokens: Iterator[_Token], where: str, place: object) -> Iterator[tuple[str, Decimal | None]]:
    if (token := next(tokens))[:2] != ("sign", "["):
        raise _wrong(where, place, token, "'[' behind 'in'")
    while True:
        yield _value(next(tokens), where, place)
        token = next(tokens)
        if token[:2] == ("sign", "]"):
            return
        if token[:2] != ("sign", ","):
            raise _wrong(where, place, token, "',' or ']'")


def _value(token: _Token, where: str, place: object) -> tuple[str, Decimal | None]:
    if token.kind not in ("word", "quoted"):
        raise _wrong(where, place, token, "a value")
    return token.text, _number(token.text) if token.kind == "word" else None


def _wrong(where: str, place: object, token: _Token, wanted: str) -> DataError:
    found = repr(token.text) if token.kind != "end" else "the end"
    return DataError(f"{place}: where: {where!r}: at character {token.place}: found {found}, expected {wanted}")


def _is_equal(cell: str, number: Decimal | None) -> bool:
    return number is not None and _number(cell) == number


def _number(text: str) -> Decimal | None:
    """The number that a text is, exactly: neither nan nor inf, nor 1_000."""
    return Decimal(text.strip()) if len(text) <= 400 and _NUMBER.fullmatch(text.strip()) else None
