"""What a row counts: names for the several meanings of a whole number, so that a signature says which one it wants.

All are int64 arrays, counted from 0.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

PoolRows: TypeAlias = npt.NDArray[np.int64]
"""Rows of one pool, as its ids and labels count them."""
StoreRows: TypeAlias = npt.NDArray[np.int64]
"""Rows of an image store, which may hold more than the pool that reads from it (others were left out or joined)."""
ProblemRows: TypeAlias = npt.NDArray[np.int64]
"""Rows over source, target, test, then unlabelled: what features, labels and images are numbered by in a run."""
TargetRows: TypeAlias = npt.NDArray[np.int64]
"""Rows of the target alone, as its folds count them: a problem's row less the length of the source."""
TrainingRows: TypeAlias = npt.NDArray[np.int64]
"""Rows of what one training sees: the source, the unlabelled where they are guessed, the target rows not held out."""
SavedRows: TypeAlias = npt.NDArray[np.int64]
"""Rows of a checkpoint or a rates file, which may be of another state of the pool: matched by id, never by number."""
