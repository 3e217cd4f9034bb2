"""Texts for a terminal: names out of pools may hold whatever moves its cursor, changes its title or hides a line."""

from __future__ import annotations


def in_a_line(text: str) -> str:
    r"""A text that stays in its line: what is not printable stands there as Python writes it, `\x1b` or `\n`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def in_lines(text: str) -> str:
    """The same for each line of a text of several."""
    return "\n".join(map(in_a_line, text.split("\n")))


def counted(number: int, what: str) -> str:
    """`1 image`, `2,000 images`, `3 classes`."""
    return f"{number:,} {what}{('es' if what.endswith('s') else 's') * (number != 1)}"
