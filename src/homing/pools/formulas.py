"""Texts that a spreadsheet would run as a formula: an apostrophe in front, and how it is taken away again.

A program that takes `;`, a tab or the end of a line for the end of a cell finds further cells in a text of ours, also
behind quotes: there a formula may begin as well as at the text's own beginning.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow.compute as pc

_SIGN = r"[=+\-@＝＋－＠]"
_SPACE = r"[\t\r\n]"
_CELL = rf"(^|;|{_SPACE})(\"*)"
_GUARD = ((rf"^('*{_SPACE})", r"'\1"), (rf"{_CELL}('*{_SIGN})", r"\1\2'\3"))
"""Patterns and what replaces them; where there are apostrophes already, one more."""
_UNGUARD = ((rf"^'('*{_SPACE})", r"\1"), (rf"{_CELL}'('*{_SIGN})", r"\1\2\3"))
_BEGINS = re.compile(rf"'*({_SIGN}|{_SPACE})")


def guarded(text: str) -> str:
    """A text of which no part is run."""
    for pattern, replacement in _GUARD:
        text = re.sub(pattern, replacement, text)
    return text


def guarded_texts(texts: Any) -> Any:
    """The same of an Arrow array of texts."""
    return _replaced(texts, _GUARD)


def unguarded_texts(texts: Any) -> Any:
    """What `guarded_texts` was given."""
    return _replaced(texts, _UNGUARD)


def begins_formula(text: str) -> bool:
    """Whether a text would be run from its beginning."""
    return _BEGINS.match(text) is not None


def _replaced(texts: Any, rules: tuple[tuple[str, str], ...]) -> Any:
    for pattern, replacement in rules:
        if pc.any(pc.match_substring_regex(texts, pattern)).as_py():
            texts = pc.replace_substring_regex(texts, pattern, replacement)
    return texts
