"""Names of classes: one name in whatever Unicode form it is written; names that look nearly the same are told."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

_SHOWN = 24  # code points of a name in a message
_LISTED = 12  # names in a message
_LONGEST = 60  # characters of one of them, and of a name of which a letter may be a slip
_SHORTEST = 5  # letters of such a name
_MOST_LETTERS = 500_000  # of all such names: 20,000 of usual length
_SEPARATORS = re.compile(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_MISSING = frozenset({"nan", "nat", "null", "none", "na", "n/a", "#n/a", "<na>", "-1", "-1.0", "?", "undefined"})
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD])


def composed(name: str) -> str:
    """A name in the Unicode form NFC: é as one code point, not as e and an accent, as macOS writes it."""
    return unicodedata.normalize("NFC", name)


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only by case, separators, invisible characters or how a number is written; groups, sorted.

    Separators are spaces, hyphens and underscores.
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_key(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def seems_missing(name: str) -> bool:
    """Whether a name may stand for a label that is not there, as other programs write it: NaN, null, -1."""
    return name.strip().casefold() in _MISSING


def spelled_alike(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Each name that is one of some others in another spelling, as `alike` tells, with that other one."""
    by_key = {_key(other): other for other in others}
    return [(name, by_key[key]) for name in names if (key := _key(name)) in by_key]


def near_misses(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Each name that is nearly one of some others, with that one: a plural, or a letter less, more, other or moved."""
    by_slip: dict[str, str] = {}
    for other, slips in _with_slips(others):
        for slip in slips:
            by_slip.setdefault(slip, other)
    found = (
        (name, next((by_slip[slip] for slip in slips if slip in by_slip), None)) for name, slips in _with_slips(names)
    )
    return [(name, other) for name, other in found if other is not None]


def quoted(names: Iterable[str], at_most: int = _LISTED, *, counts: Mapping[str, int] | None = None) -> str:
    """Names as a message lists them: each in quotes, so that spaces and line breaks show, and none of any length.

    Args:
        names: All of them.
        at_most: How many are listed.
        counts: Images of each name, where they are to be told.
    """
    names = list(names)
    cut = [repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}...") for name in names[:at_most]]
    if counts is not None:
        held = [counts[name] for name in names[:at_most]]
        cut = [f"{text} ({count:,} image{'s' * (count != 1)})" for text, count in zip(cut, held, strict=True)]
    more = f", ... {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(cut) + more


def shown(name: str) -> str:
    """A name as a message shows it where its looks do not tell: in quotes, with its code points."""
    points = " ".join(f"U+{ord(letter):04X}" for letter in name[:_SHOWN])
    return f"{name!r} ({points}{' ...' if len(name) > _SHOWN else ''})"


def _key(name: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", name.translate(_INVISIBLE)).casefold().split())
    number = float(folded) if _NUMBER.fullmatch(folded) else math.inf
    return repr(number) if math.isfinite(number) else _SEPARATORS.sub("", folded) or folded


def _with_slips(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each name with what it and its near misses have in common, the likeliest first.

    That is itself, its singular, and it with one letter left out. Digits are no slips: class 1 is not class 2. Letters
    are left out as long as names are of usual length and number, for the work grows with the square of the length.
    """
    letters = 0
    for name in names:
        key = _key(name)
        found = [key, key.removesuffix("es"), key.removesuffix("s")]
        if _SHORTEST <= len(key) <= _LONGEST and letters < _MOST_LETTERS:
            letters += len(key)
            found += [key[:place] + key[place + 1 :] for place in range(len(key)) if not key[place].isdigit()]
        yield name, found
