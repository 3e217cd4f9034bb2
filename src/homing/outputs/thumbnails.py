"""Pictures of source samples by id, for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from homing.errors import DataError
from homing.pools.pool import Pool, join
from homing.pools.reading import read_pool

if TYPE_CHECKING:
    from homing.recipe.schema import Recipe

Pictures = Callable[[list[str]], list[bytes | None]]


def thumbnails_of(recipe: Recipe) -> Pictures:
    """Pictures out of a recipe's source pools; where those are gone, none."""
    try:
        return pictures_of(join([read_pool(spec) for spec in recipe.data.sources]))
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
        rows = _rows_of(source.ids, set(ids))
        return [read(rows.get(sample_id)) for sample_id in ids]

    return pictures


def _rows_of(ids: Sequence[str], wanted: set[str]) -> dict[str, int]:
    """Where the few that are wanted stand among all; nothing is held of the others."""
    if hasattr(ids, "to_arrow"):
        import pyarrow as pa
        import pyarrow.compute as pc

        is_wanted = pc.is_in(ids.to_arrow(), value_set=pa.array(sorted(wanted), pa.string()))
        rows = np.flatnonzero(is_wanted.to_numpy()).tolist()
        return {ids[row]: row for row in rows}
    return {sample_id: row for row, sample_id in enumerate(ids) if sample_id in wanted}
