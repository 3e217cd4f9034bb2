"""Unlabelled images that are in a run once already: in the test, the target, the source, or among themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.problem import Problem
from homing.pools.rows import ProblemRows

_BEFORE = ("test", "target", "source")


def repeated_rows(problem: Problem, digests: npt.NDArray[np.uint8]) -> dict[str, ProblemRows]:
    """Rows of the unlabelled images that are the same pictures, byte for byte, as others; they are to be left out.

    Pictures of the test never serve, and those of target and source have labels that are known.

    Args:
        problem: With its rows as they were scanned.
        digests: uint8 [rows, 16], beginning of the sha256 of each image's bytes; 0 where it cannot be read.

    Returns:
        Role that has the picture → rows; a row is with the first of test, target, source, unlabelled that has it.

    Raises:
        DataError: None of the unlabelled images that can be read is left.
    """
    rows = problem.unlabelled_rows
    if not len(rows):
        return {}
    keys = np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
    own, starts = keys[rows], dict(zip(problem.by_role, np.cumsum([0, *map(len, problem.pools)]), strict=False))
    left, found = own != 0, dict[str, ProblemRows]()
    for role in (role for role in _BEFORE if role in problem.by_role):
        theirs = keys[starts[role] : starts[role] + len(problem.by_role[role])]
        again = left & np.isin(own, theirs)
        found[role], left = rows[again], left & ~again
    again = left.copy()
    again[np.unique(own, return_index=True)[1]] = False
    found["unlabelled"] = rows[again]
    found = {role: again for role, again in found.items() if len(again)}
    if found and not (left & ~again).any():
        raise DataError(
            f"unlabelled: all of its {len(rows):,} images are in the {' or the '.join(found)} too; give others, or"
            " leave data.unlabelled out"
        )
    return found
