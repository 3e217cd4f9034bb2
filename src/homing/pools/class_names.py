"""Names of classes: one name in whatever Unicode form it is written; names that only look the same are told."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_SHOWN = 24  # code points of a name in a message
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD])


def composed(name: str) -> str:
    """A name in the Unicode form NFC: é as one code point, not as e and an accent, as macOS writes it."""
    return unicodedata.normalize("NFC", name)


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only by case, outer space, invisible characters or the width of letters; groups, sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_key(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """One of some names that looks the same as another one."""
    return next((other for other in names if other != name and _key(other) == _key(name)), None)


def shown(name: str) -> str:
    """A name as a message shows it where its looks do not tell: in quotes, with its code points."""
    points = " ".join(f"U+{ord(letter):04X}" for letter in name[:_SHOWN])
    return f"{name!r} ({points}{' ...' if len(name) > _SHOWN else ''})"


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name.translate(_INVISIBLE)).casefold()
    return " ".join(folded.split())
