"""Unlabelled images that are in a run once already: in the test, the target, the source, or among themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.pool import Pool
from homing.pools.problem import Problem
from homing.pools.rows import ProblemRows

_BEFORE = ("test", "target", "source")
_FIRST = 8  # images


def repeated_rows(
    problem: Problem, digests: npt.NDArray[np.uint8], unreadable: Iterable[int] = ()
) -> dict[str, ProblemRows]:
    """Rows of the unlabelled images that are the same pictures, byte for byte, as others; they are to be left out.

    Pictures of the test never serve, and those of target and source have labels that are known.

    Args:
        problem: With its rows as they were scanned.
        digests: uint8 [rows, 16], beginning of the sha256 of each image's bytes; 0 where they cannot be read.
        unreadable: Rows that are no images, which are left out as such.

    Returns:
        Role that has the picture → rows; a row is with the first of test, target, source, unlabelled that has it.

    Raises:
        DataError: None of the unlabelled images that can be read is left.
    """
    rows = problem.unlabelled_rows
    if not len(rows):
        return {}
    keys = np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
    readable = keys != 0
    readable[np.fromiter(unreadable, np.int64)] = False
    own, starts = keys[rows], dict(zip(problem.by_role, np.cumsum([0, *map(len, problem.pools)]), strict=False))
    left, found = readable[rows], dict[str, ProblemRows]()
    for role in (role for role in _BEFORE if role in problem.by_role):
        theirs = keys[starts[role] : starts[role] + len(problem.by_role[role])]
        again = left & np.isin(own, theirs)
        found[role], left = rows[again], left & ~again
    again = left.copy()
    again[np.flatnonzero(left)[np.unique(own[left], return_index=True)[1]]] = False
    found["unlabelled"] = rows[again]
    found = {role: again for role, again in found.items() if len(again)}
    if found and not (left & ~again).any():
        raise _nothing_new(int(readable[rows].sum()), len(rows), list(found))
    return found


def check_some_are_new(problem: Problem, num_listed: int) -> None:
    """The same question before a scan, which most pools answer by their first images.

    Args:
        problem: Without what cannot be read.
        num_listed: Unlabelled images, those that cannot be read among them.

    Raises:
        DataError: As `repeated_rows`.
    """
    pool = problem.unlabelled
    if pool is None:
        return
    others = {role: problem.by_role[role] for role in _BEFORE if role in problem.by_role}
    for count in (_FIRST, len(pool)):
        rows = range(min(count, len(pool)))
        lengths, wanted = {pool.size(row) for row in rows}, {_digest(pool, row) for row in rows}
        found = {}
        for role, other in others.items():
            alike = (row for row in range(len(other)) if other.size(row) in lengths)
            found[role] = wanted & {_digest(other, row) for row in alike}
            wanted = wanted - found[role]
        if wanted:
            return
    raise _nothing_new(len(pool), num_listed, [role for role, digests in found.items() if digests])


def _digest(pool: Pool, row: int) -> bytes:
    return pool.known_digest(row) or hashlib.sha256(pool.read(row)).digest()


def _nothing_new(num_readable: int, num_listed: int, roles: Sequence[str]) -> DataError:
    which = "images" if num_readable == num_listed else "images that can be read"
    return DataError(
        f"unlabelled: all of its {num_readable:,} {which} are in the {' or the '.join(roles)} too; give others, or"
        " leave data.unlabelled out"
    )
