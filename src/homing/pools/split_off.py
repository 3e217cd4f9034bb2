"""A test out of the target's own images: chosen by their ids, class by class, no picture on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.label_sets import strata
from homing.pools.near_duplicates import copies_within, looks_of_pool
from homing.pools.pool import Pool, ReadAs
from homing.pools.rows import PoolRows

Hashes = npt.NDArray[np.uint64]


def split_off(pool: Pool, stretch: tuple[float, float], max_pixels: int) -> tuple[Pool, Pool]:
    """The pool without its test, and the test.

    In each class images stand in the order of the hash of their ids, which depends on nothing else: not on their order
    in the pool, the seed, or other images. The test is a stretch of that order. Copies of a picture, in the same bytes
    or saved anew, stand together, where the first of them does. Of each class something stays. An image of several
    classes stands in the rarest of them.

    Args:
        pool: The whole target.
        stretch: Beginning and end of the test, 0..1.
        max_pixels: A larger picture is no image.

    Raises:
        DataError: There are too few images for a test.
    """
    copies = copies_within(pool, looks_of_pool(pool, max_pixels), max_pixels)
    tested = rows_of_test(pool, stretch, copies)
    if not tested.any():
        raise DataError(
            f"{stretch[1] - stretch[0]:.3g} of the {len(pool):,} images of the target are too few for a test (something"
            " of each class stays in the target, and copies of a picture stay together); hold out more, label more"
            " images, or give data.test a path"
        )
    test = pool.select(np.flatnonzero(tested))
    about = f"{len(test):,} of the {len(pool):,} images of the target, by their ids"
    return pool.select(np.flatnonzero(~tested)), replace(test, read_as=(ReadAs(pool.name, about),))


def rows_of_test(pool: Pool, stretch: tuple[float, float], copies: Iterable[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Which images are the test; bool [len(pool)].

    Args:
        pool: The whole target.
        stretch: As for `split_off`.
        copies: Pairs of rows that hold the same picture.
    """
    hashes = np.array([_hash(sample_id) for sample_id in pool.ids], np.uint64)
    leader = _leaders(hashes, copies)
    sizes = np.bincount(leader, minlength=len(pool))
    codes, names = strata(pool)
    tested = np.zeros(len(pool), np.bool_)
    for code, name in enumerate(names):
        leading = _ordered(np.flatnonzero((codes == code) & (sizes > 0)), hashes)
        reached = sizes[leading].cumsum()
        begin, end = (np.floor(share * sizes[leading].sum() + _hash(name) / 2**64) for share in stretch)
        before = reached - sizes[leading]
        tested[leading] = (before >= begin) & (before < end)
    tested = tested[leader]
    for code in range(len(names)):
        own = np.flatnonzero(codes == code)
        if tested[own].all():  # its last picture goes back
            tested[leader == leader[_ordered(own, hashes[leader])[-1]]] = False
    return tested


def _leaders(hashes: Hashes, copies: Iterable[tuple[int, int]]) -> PoolRows:
    """Of each row the one of its copies whose hash is lowest, int64 [N]; itself where it has none."""
    leader = np.arange(len(hashes))
    for first, second in copies:
        ends = leader[first], leader[second]
        lowest = min(ends, key=lambda row: (hashes[row], row))
        leader[np.isin(leader, ends)] = lowest
    return leader


def _ordered(rows: PoolRows, hashes: Hashes) -> PoolRows:
    return rows[np.argsort(hashes[rows], kind="stable")]


def _hash(text: str) -> int:
    """A number of 64 bits; another one than `limit` draws by, so that neither choice depends on the other."""
    return int.from_bytes(hashlib.sha256(f"split {text}".encode()).digest()[:8], "big")
