"""Outputs keep clear of pools: what is written into one would be read as a part of it, and could replace images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from homing.errors import DataError, RecipeError
from homing.pools.stored_files import expanded
from homing.recipe.urls import is_url

OWN_DATA = "data"
"""Folder in a run folder that holds the run's own pools (the quickstart's); nothing else is ever written to it."""


def check_output(output: Path, pools: Iterable[str | Path]) -> None:
    """Whether an output keeps clear of the pools that it is made from; every verb that writes asks this first.

    Args:
        output: File or folder to write.
        pools: Paths of the pools, or patterns; what is no path on this machine (a URL, a name on a hub) is passed over.

    Raises:
        RecipeError: It is a pool, holds one or lies in one; says which.
    """
    for relation, pool in _touched(output, pools):
        raise RecipeError(f"{output}: {relation} the pool {pool}; give an --output that lies apart from all pools")


def check_cache(cache: str, pools: Iterable[str | Path]) -> None:
    """Whether the folder that features are kept in (`output.cache`) is or lies in no pool; it may hold some.

    Raises:
        RecipeError: It does; says which.
    """
    for relation, pool in _touched(Path(cache), pools) if cache not in ("user", "none") else ():
        if relation != "holds":
            raise RecipeError(f"output.cache: {cache} {relation} the pool {pool}; set a folder apart from all pools")


def _touched(output: Path, pools: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
    """How an output lies to the pools that it touches, and which these are."""
    place = output.resolve()
    for given in (one for path in pools for one in _local(str(path))):
        if not Path(given).exists():
            continue
        pool = Path(given).resolve()
        if place == pool:
            yield "is", given
        elif place.is_relative_to(pool):
            yield "lies in", given
        elif pool.is_relative_to(place) and not pool.is_relative_to(place / OWN_DATA):
            yield "holds", given


def _local(path: str) -> list[str]:
    """The paths on this machine that a pool's path stands for."""
    if is_url(path):
        return []
    with suppress(DataError):  # braces that are no pattern: told where the pool is read
        return [path] if Path(path).exists() else expanded(path)
    return [path]
