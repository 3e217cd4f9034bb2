"""Outputs keep clear of pools: what is written into one would be read as a part of it, and could replace images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from homing.errors import RecipeError

OWN_DATA = "data"
"""Folder in a run folder that holds the run's own pools (the quickstart's); nothing else is ever written to it."""


def check_output(output: Path, pools: Iterable[str | Path]) -> None:
    """Whether an output keeps clear of the pools that it is made from; every verb that writes asks this first.

    Args:
        output: File or folder to write.
        pools: Paths of the pools; what is no path on this machine (a name on a hub) is passed over.

    Raises:
        RecipeError: It is a pool, holds one or lies in one; says which.
    """
    place = output.resolve()
    for given in pools:
        if not Path(given).exists():
            continue
        pool = Path(given).resolve()
        if place == pool:
            relation = "is the pool"
        elif place.is_relative_to(pool):
            relation = "lies in the pool"
        elif pool.is_relative_to(place) and not pool.is_relative_to(place / OWN_DATA):
            relation = "holds the pool"
        else:
            continue
        raise RecipeError(f"{output}: {relation} {given}; give an --output that lies apart from all pools")
