"""Pictures of samples by id, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from homing.errors import DataError
from homing.outputs.report.pictures import Pictures, Shown
from homing.pools.pool import Pool, join
from homing.pools.reading import read_pool

if TYPE_CHECKING:
    from homing.pools.problem import Problem
    from homing.recipe.schema import Recipe

_BLOCK = 1 << 20  # ids that are looked through at a time


def thumbnails_of(recipe: Recipe) -> Pictures:
    """Pictures out of a recipe's source pools; where those are gone, none."""
    try:
        return pictures_of(join([read_pool(spec, sets=None) for spec in recipe.data.sources]))
    except DataError:
        return lambda ids: [None] * len(ids)


def shown_of_recipe(recipe: Recipe) -> Shown:
    """What the report of a recipe's run may show, out of its pools, as far as they can still be read."""
    data = recipe.data
    own: dict[str, Pictures] = {}
    if recipe.output.show_target:
        for role, spec in (("target", data.target_pool), ("test", data.test_pool)):
            with suppress(DataError):
                own |= {} if spec is None else {role: pictures_of(read_pool(spec, sets=None))}
    return Shown(thumbnails_of(recipe), own=own)


def shown_of_problem(problem: Problem, *, show_target: bool) -> Shown:
    """The same of pools that are open."""
    pools = {"target": problem.target, "test": problem.test} if show_target else {}
    own = {role: pictures_of(pool) for role, pool in pools.items() if pool is not None}
    return Shown(pictures_of(problem.source), own=own)


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
