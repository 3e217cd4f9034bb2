"""Names of classes: one name in whatever Unicode form it is written; names that only look the same are told."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

_SHOWN = 24  # code points of a name in a message
_LISTED = 12  # names in a message
_LONGEST = 60  # characters of one of them
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_MISSING = frozenset({"nan", "nat", "null", "none", "na", "n/a", "#n/a", "<na>", "-1", "-1.0", "?", "undefined"})
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD])


def composed(name: str) -> str:
    """A name in the Unicode form NFC: é as one code point, not as e and an accent, as macOS writes it."""
    return unicodedata.normalize("NFC", name)


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only by case, outer space, invisible characters or how a number is written; groups, sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_key(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def seems_missing(name: str) -> bool:
    """Whether a name may stand for a label that is not there, as other programs write it: NaN, null, -1."""
    return name.strip().casefold() in _MISSING


def nearest(name: str, names: Sequence[str]) -> str | None:
    """One of some names that looks the same as another one."""
    return next((other for other in names if other != name and _key(other) == _key(name)), None)


def quoted(names: Iterable[str], at_most: int = _LISTED) -> str:
    """Names as a message lists them: each in quotes, so that spaces and line breaks show, and none of any length."""
    names = list(names)
    cut = (name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:at_most])
    more = f", ... {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(map(repr, cut)) + more


def shown(name: str) -> str:
    """A name as a message shows it where its looks do not tell: in quotes, with its code points."""
    points = " ".join(f"U+{ord(letter):04X}" for letter in name[:_SHOWN])
    return f"{name!r} ({points}{' ...' if len(name) > _SHOWN else ''})"


def _key(name: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", name.translate(_INVISIBLE)).casefold().split())
    number = float(folded) if _NUMBER.fullmatch(folded) else math.inf
    return repr(number) if math.isfinite(number) else folded
