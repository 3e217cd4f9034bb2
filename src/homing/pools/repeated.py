"""Unlabelled images that are in a run once already: in the test, the target, the source, or among themselves."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.problem import Problem
from homing.pools.rows import ProblemRows

_BEFORE = ("test", "target", "source")


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
        some = int(readable[rows].sum())
        which = f"{some:,} images" if some == len(rows) else f"{some:,} images that can be read"
        raise DataError(
            f"unlabelled: all of its {which} are in the {' or the '.join(found)} too; give others, or"
            " leave data.unlabelled out"
        )
    return found
