"""Pictures of source samples by id, for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from homing.errors import DataError
from homing.pools.pool import Pool, join
from homing.pools.reading import read_pool

if TYPE_CHECKING:
    from homing.recipe.schema import Recipe

_BLOCK = 1 << 20  # ids that are looked through at a time
Pictures = Callable[[list[str]], list[bytes | None]]


def thumbnails_of(recipe: Recipe) -> Pictures:
    """Pictures out of a recipe's source pools; where those are gone, none."""
    try:
        return pictures_of(join([read_pool(spec, sets=None) for spec in recipe.data.sources]))
    except DataError:
        return lambda ids: [None] * len(ids)


def pictures_of(source: Pool) -> Pictures:
    """Encoded images of a pool by id; None for one that cannot be read."""

    def read(row: int | None) -> bytes | None:
        try:
            return None if row is None else source.read(row)
        except OSError:
            return None

    def pictures(ids: list[str]) -> list[bytes | None]:
        rows = rows_by_id(source.ids, set(ids))
        return [read(rows.get(sample_id)) for sample_id in ids]

    return pictures


def rows_by_id(ids: Sequence[str], wanted: set[str]) -> dict[str, int]:
    """Id → row of the few that are wanted among all, which are looked through a block at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    few = pa.array(sorted(wanted), pa.string())
    found: dict[str, int] = {}
    for start in range(0, len(ids), _BLOCK):
        part: Any = ids[start : start + _BLOCK]
        names = part.to_arrow() if hasattr(part, "to_arrow") else pa.array(list(part), pa.string())
        inside = np.flatnonzero(pc.is_in(names, value_set=few).to_numpy(zero_copy_only=False))
        found.update(zip(names.take(pa.array(inside)).to_pylist(), (start + inside).tolist(), strict=True))
    return found
