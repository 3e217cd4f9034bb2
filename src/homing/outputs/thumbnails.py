"""Pictures of source samples by id, for the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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
    rows = {sample_id: row for row, sample_id in enumerate(source.ids)}

    def read(sample_id: str) -> bytes | None:
        try:
            return source.read(rows[sample_id])
        except (KeyError, OSError):
            return None

    return lambda ids: [read(sample_id) for sample_id in ids]
