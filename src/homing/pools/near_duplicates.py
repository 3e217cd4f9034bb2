"""The same picture saved twice: in two roles, or several times in the source, told by looks and then by pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.decoding import decode
from homing.pools.images import Images
from homing.pools.looks import CANVAS, Looks, equal_pairs, looks_of, near_pairs, same_picture
from homing.pools.pool import Pool

PAIRS = (
    ("target", "test"),
    ("source", "test"),
    ("source", "target"),
    ("unlabelled", "test"),
    ("unlabelled", "target"),
)
"""Roles whose shared pictures are told."""
CHECKED = 300
"""Pairs of a kind whose pixels are compared; the nearest come first."""
CANDIDATES = 50
"""Pictures behind a picture of the same pool that are compared with it, the nearest ones, where more look like it."""
_BATCH = 256
Canvas = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Twins:
    """Pictures of one role that are those of another, or of the same, saved anew.

    Attributes:
        first: Role.
        second: Role; the same for pictures that the source holds several times.
        pairs: Their ids, those whose pixels were compared.
        count: How many there are in all, as far as they were compared, or about.
    """

    first: str
    second: str
    pairs: tuple[tuple[str, str], ...]
    count: int


def looks_of_pool(pool: Pool, max_pixels: int) -> Looks:
    """Decode all pictures of a small pool for their looks; 0 where that is not possible."""
    found = np.zeros(len(pool), np.uint64)
    images = Images(pool.store, pool.rows, pool.ids, canvas=CANVAS, max_pixels=max_pixels, cache_gb=0.0, workers=None)
    rows = np.arange(len(pool))
    for loaded in images.loading(rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)):
        found[loaded.rows[loaded.good]] = looks_of(loaded.canvases)
    images.close()
    return found


def twins(pools: Mapping[str, Pool], looks: Mapping[str, Looks], max_pixels: int) -> list[Twins]:
    """Pictures that are in two roles, or in the source more than once, as other files of the same pixels, or nearly.

    Files of the same bytes in two roles are left out: `problem.overlaps` tells them.

    Args:
        pools: Of some roles.
        looks: Of their pictures, 0 where they are not known.
        max_pixels: A larger picture is not looked at.
    """
    seen = _Small(max_pixels)
    found = []
    for first, second in PAIRS:
        if first in looks and second in looks:
            ours, theirs = near_pairs(looks[first], looks[second], at_most=1)
            pairs = list(zip(ours.tolist(), theirs.tolist(), strict=True))
            found.append(_confirmed(first, second, pools[first], pools[second], pairs, seen))
    if "source" in looks:
        source, (firsts, again) = pools["source"], equal_pairs(looks["source"])
        found.append(
            _confirmed(
                "source", "source", source, source, list(zip(again.tolist(), firsts.tolist(), strict=True)), seen
            )
        )
    return [one for one in found if one.pairs]


def twin_lines(pools: Mapping[str, Pool], looks: Looks, max_pixels: int, at_most: int = 20) -> list[str]:
    """`twins` as sentences: one a pair, at most 20 a pair of roles.

    Args:
        pools: Of some roles.
        looks: Of their pictures, one pool behind the other.
        max_pixels: A larger picture is not looked at.
        at_most: Sentences a pair of roles.
    """
    ends = np.cumsum([0, *(len(pool) for pool in pools.values())])
    parts = {role: looks[start:end] for role, (start, end) in zip(pools, pairwise(ends.tolist()), strict=True)}
    found = []
    for one in twins(pools, parts, max_pixels):
        named = one.pairs[:at_most]
        if one.first == one.second:
            found += [f"{one.first}: {theirs} and {ours} are the same picture" for ours, theirs in named]
            where = f"{one.first}: ... and {{}} in it more than once"
        else:
            pair = "nearly the same picture is in {} ({}) and {} ({})"
            found += [pair.format(one.first, ours, one.second, theirs) for ours, theirs in named]
            where = f"... and {{}} of {one.first} in {one.second}, nearly the same"
        if (more := one.count - len(named)) > 0:
            found.append(where.format(f"{more:,} further picture{'s' * (more > 1)}"))
    return found


def copies_within(pool: Pool, looks: Looks, max_pixels: int) -> list[tuple[int, int]]:
    """Pairs of rows that hold the same picture, in the same bytes or saved anew: as many as link all copies.

    Where more than `CANDIDATES` pictures look like one, the others are not compared with it.
    """
    seen, group, links = _Small(max_pixels), np.arange(len(pool)), []
    for first, second in zip(*(rows.tolist() for rows in near_pairs(looks, at_most=CANDIDATES)), strict=True):
        if group[first] != group[second] and seen.same(pool, pool, first, second):
            group[group == group[second]] = group[first]
            links.append((first, second))
    return links


def _confirmed(first: str, second: str, ours: Pool, theirs: Pool, pairs: list[tuple[int, int]], seen: _Small) -> Twins:
    """The pairs whose pixels are the same; where there are many, of all as many as of those that were compared."""
    is_within = first == second
    checked = pairs[:CHECKED]
    same = [pair for pair in checked if seen.same(ours, theirs, *pair, counts_bytes=is_within)]
    share = len(same) / max(1, len(checked))
    named = tuple((str(ours.ids[mine]), str(theirs.ids[other])) for mine, other in same)
    return Twins(first, second, named, round(share * len(pairs)))


class _Small:
    """Compares pictures by their bytes, then by their pixels at a small size: 3 kB of each, which is decoded once."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._digests: dict[tuple[int, int], bytes | None] = {}  # by pool and row; None where it cannot be had
        self._canvases: dict[bytes, Canvas | None] = {}  # by digest; None where it cannot be decoded

    def same(self, ours: Pool, theirs: Pool, mine: int, other: int, *, counts_bytes: bool = True) -> bool:
        """Whether two rows hold the same picture. counts_bytes: also where their bytes are the same."""
        digests = self._seen(ours, mine), self._seen(theirs, other)
        if None in digests:
            return False
        if digests[0] == digests[1]:
            return counts_bytes
        first, second = (self._canvases[digest] for digest in digests if digest is not None)
        return first is not None and second is not None and same_picture(first, second)

    def _seen(self, pool: Pool, row: int) -> bytes | None:
        """Digest of a picture, whose canvas is there from now on."""
        place = id(pool), row
        if place not in self._digests:
            self._digests[place] = self._look(pool, row)
        return self._digests[place]

    def _look(self, pool: Pool, row: int) -> bytes | None:
        try:
            data = pool.read(row)
        except (DataError, OSError):
            return None
        digest = hashlib.sha256(data).digest()
        if digest not in self._canvases:
            with suppress(DataError):
                self._canvases[digest] = None
                self._canvases[digest] = decode(data, CANVAS, max_pixels=self._max_pixels)
        return digest
