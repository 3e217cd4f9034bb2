"""Further columns of a pool by name, read when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from homing.pools.rows import PoolRows
from homing.pools.texts import Texts


class Columns(Mapping[str, Texts]):
    """Column name → one text a row.

    Args:
        readers: How to read each column; called once, when the column is first asked for.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Texts]]) -> None:
        self._readers = dict(readers)
        self._known: dict[str, Texts] = {}

    @classmethod
    def of(cls, columns: Mapping[str, Texts]) -> Columns:
        """Columns that are in memory already."""
        return columns if isinstance(columns, Columns) else cls({k: lambda v=v: Texts(v) for k, v in columns.items()})  # type: ignore[misc]

    def __getitem__(self, name: str) -> Texts:
        if name not in self._known:
            self._known[name] = self._readers[name]()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __contains__(self, name: object) -> bool:
        return name in self._readers  # without reading it

    def take(self, rows: PoolRows) -> Columns:
        """The same columns of some rows."""
        return Columns({name: lambda name=name: self[name].take(rows) for name in self})  # type: ignore[misc]


def joined_columns(parts: list[tuple[Columns, int]]) -> Columns:
    """Columns of several pools, one behind the other; empty texts for a pool that lacks one.

    Args:
        parts: The columns of each pool, and its number of rows.
    """

    def reader(name: str) -> Callable[[], Texts]:
        return lambda: Texts.concat([held[name] if name in held else Texts.constant("", num) for held, num in parts])

    return Columns({name: reader(name) for name in sorted({name for held, _ in parts for name in held})})
