"""What image files look like from outside: as git's index does, path, size and time of change tell whether to look."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from homing.pools.pool import ImageStore, JoinedImages
from homing.pools.reading import FolderImages


def states_of(store: ImageStore, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """16 bytes for each image that change when it may have changed; uint8 [n, 16], zeros where that is not known."""
    own: Any = getattr(store, "states", None)
    if own is not None:
        return np.asarray(own(rows))
    states = np.zeros((len(rows), 16), np.uint8)
    if isinstance(store, JoinedImages):
        which = np.searchsorted(store.starts, rows, side="right") - 1
        for number in np.unique(which):
            mine = which == number
            states[mine] = states_of(store.stores[number], rows[mine] - store.starts[number])
    elif isinstance(store, FolderImages):
        root = os.path.abspath(store.root)
        for place, row in enumerate(rows.tolist()):
            path = f"{root}/{store.names[row]}"
            try:
                found = os.stat(path)
            except OSError:
                continue
            text = f"{path}\0{found.st_size}\0{found.st_mtime_ns}".encode(errors="surrogateescape")
            states[place] = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint8)
    return states
