"""Images that lie in larger files, by row: each a range of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from homing.pools.files import MAX_FILE_BYTES, states_within, unreadable
from homing.pools.pool import STATE_BYTES
from homing.pools.rows import StoreRows
from homing.pools.stored_files import StoredFile

NONE = -1
"""In place of an offset and a size: the row has no image."""


class ArchiveImages:
    """Images by row, from several threads at once.

    Args:
        files: What they lie in.
        numbers: Which of the files, int32 [N].
        offsets: Where each begins, int64 [N]; NONE where there is no image.
        sizes: Bytes, int64 [N].
    """

    def __init__(
        self,
        files: Sequence[StoredFile],
        numbers: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        self.files, self.numbers, self.offsets, self.sizes = tuple(files), numbers, offsets, sizes

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, row: int) -> bytes:
        """The bytes of one image; raises OSError where there is none, or where its file is no longer what it was."""
        size = self.size(row)
        file = self.files[int(self.numbers[row])]
        data = file.read(int(self.offsets[row]), size)
        if len(data) != size:
            raise unreadable(f"{file.where} ends within this image")
        return data

    def size(self, row: int) -> int:
        """Bytes of one image, without reading it; raises OSError where there is none."""
        size = int(self.sizes[row])
        if size < 0:
            raise unreadable("the sample holds no image")
        if size > MAX_FILE_BYTES:
            raise unreadable(f"{size:,} bytes, more than a picture has (at most {MAX_FILE_BYTES:,} are read)")
        return size

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """Changes with the file and the place in it.

        uint8 [len(rows), 16]; zeros where the file is gone, or the row has no image.
        """
        rows = np.asarray(rows, np.int64)
        found = np.zeros((len(rows), STATE_BYTES), np.uint8)
        for number in np.unique(self.numbers[rows]).tolist():
            mine = np.flatnonzero((self.numbers[rows] == number) & (self.offsets[rows] >= 0))
            if (state := self.files[number].state()) is not None:
                found[mine] = states_within(state, self.offsets[rows[mine]])
        return found

    def known_digest(self, row: int) -> bytes | None:
        """None: members are listed, not read."""
        return None
