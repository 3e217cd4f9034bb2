"""Images inside a table, by row: read by row group, a few of which are held."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from homing.pools.files import file_state, read_regular, states_within, unreadable
from homing.pools.part import Part
from homing.pools.pool import STATE_BYTES
from homing.pools.rows import StoreRows
from homing.pools.texts import Texts

HELD_BYTES = 128_000_000
"""Of blocks that are held at a time; one more where a single one is larger."""
HELD_FILES = 16
REMEDY = "write the table anew with the images' bytes in it, or put table and files into one folder"


class TableImages:
    """Images inside a table; files that it names must lie in its folder.

    Args:
        parts: The table's files.
        column: Of the images: bytes, or a struct of `bytes` and `path`.
        root: Folder in which files that the table names have to lie; None where it may name none.
    """

    def __init__(self, parts: Sequence[Part], column: str, root: Path | None) -> None:
        self.parts, self.column, self.root = tuple(parts), column, None if root is None else root.resolve()
        self.starts = np.cumsum([0, *(part.num_rows for part in parts)], dtype=np.int64)
        self.digests: npt.NDArray[np.uint8] | None = None
        """sha256 of each image's bytes, uint8 [rows, 32], zeros where unread; None before `content_ids`."""
        self._held: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()
        self._open: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()
        self._paths: dict[int, Texts | None] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, row: int) -> bytes:
        """The bytes in the table, or those of the file that it names."""
        part, inside = self._place(row)
        with self._readable(part):
            alone = self.parts[part].row(self.column, inside)
        if alone is not None:
            return self._bytes(alone.as_py())
        with self._lock:
            starts = self._starts(part)
            number = int(np.searchsorted(starts, inside, side="right")) - 1
            block = self._block(part, number)
        return self._bytes(block[int(inside - starts[number])].as_py())

    def size(self, row: int) -> int:
        """The size of the bytes, which are read for it."""
        return len(self.read(row))

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """Changes with the table's file, the row, and the file that the table names.

        uint8 [len(rows), 16]; zeros where the table's file is gone.
        """
        rows = np.asarray(rows, np.int64)
        found = np.zeros((len(rows), STATE_BYTES), np.uint8)
        places = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(places).tolist():
            mine = np.flatnonzero(places == number)
            inside = rows[mine] - self.starts[number]
            table = self.parts[number].state()
            if table is None:
                continue
            found[mine] = states_within(table, inside)
            try:
                with self._lock:
                    paths = self._paths_of(number)
            except (pa.ArrowException, OSError):  # a damaged file: what it names is unknown
                found[mine] = 0
                continue
            if paths is not None:
                named = [self._file_state(path) for path in paths.take(inside)]
                found[mine] ^= np.frombuffer(b"".join(named), np.uint8).reshape(-1, STATE_BYTES)
        return found

    def known_digest(self, row: int) -> bytes | None:
        """sha256 of a row's image, once `content_ids` read it."""
        if self.digests is None or not self.digests[row].any():
            return None
        return bytes(self.digests[row])

    def content_ids(self, rows: StoreRows | None = None) -> tuple[Texts, dict[int, str]]:
        """Ids out of one pass over the images: 32 hexadecimal digits of the sha256 of an image's bytes.

        Further copies of one picture get a number behind it; what cannot be read is `row-N`, counted from 0.

        Args:
            rows: Those that are wanted, ascending; None: all. Blocks without one are not read.

        Returns:
            The id of each wanted row, and row → why it cannot be read.
        """
        digests = np.zeros((len(self), 32), np.uint8)
        wanted = np.ones(len(self), np.bool_) if rows is None else np.isin(np.arange(len(self)), rows)
        wrong: dict[int, str] = {}
        for number in range(len(self.parts)):
            with self._lock:
                starts = self._starts(number) + int(self.starts[number])
            for block, (row, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
                if block == 0:
                    self._paths[number] = None  # until one is met that lies elsewhere
                if not wanted[row:end].any():
                    self._paths.pop(number, None)  # what it names is not known
                    continue
                with self._lock:
                    values = self._block(number, block)
                    self._held.clear()  # none of it is read again on this pass
                for chunk in values.chunks:
                    found = b"".join(self._digests(chunk, number, row, wrong))
                    digests[row : row + len(chunk)] = np.frombuffer(found, np.uint8).reshape(-1, 32)
                    row += len(chunk)
        self.digests = digests
        kept = np.flatnonzero(wanted)
        wrong = {row: why for row, why in wrong.items() if wanted[row]}
        return ids_of(digests[kept], np.array(sorted(wrong), np.int64), kept), wrong

    def close(self) -> None:
        """Let go of what is held and open; a later read opens it again."""
        with self._lock:
            self._held.clear()
            for number in list(self._open):
                self.parts[number].close()
            self._open.clear()

    def _place(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return part, int(row - self.starts[part])

    def _at(self, number: int) -> Part:
        """A part, noted as open; those that were used longest ago are closed."""
        self._open[number] = None
        self._open.move_to_end(number)
        while len(self._open) > HELD_FILES:
            self.parts[self._open.popitem(last=False)[0]].close()
        return self.parts[number]

    def _starts(self, part: int) -> npt.NDArray[np.int64]:
        with self._readable(part):
            return self._at(part).starts(self.column)

    def _block(self, part: int, number: int) -> pa.ChunkedArray:
        key = (part, number)
        if key not in self._held:
            with self._readable(part):
                self._held[key] = self._at(part).block(self.column, number)
            while len(self._held) > 1 and sum(block.nbytes for block in self._held.values()) > HELD_BYTES:
                self._held.popitem(last=False)
        else:
            self.parts[part].check()  # it may be a view of the file
        self._held.move_to_end(key)
        return self._held[key]

    @contextmanager
    def _readable(self, part: int) -> Iterator[None]:
        """What a damaged file makes pyarrow raise, as an OSError."""
        try:
            yield
        except (pa.ArrowException, OSError, StopIteration) as error:
            reason = " ".join(str(error).split()) or "it ends too early"
            raise unreadable(f"{self.parts[part].path.name} cannot be read: {reason}") from error

    def _digests(self, chunk: pa.Array, part: int, start: int, wrong: dict[int, str]) -> Iterator[bytes]:
        """sha256 of each image of a chunk, out of Arrow's own memory where it lies there; zeros where unreadable."""
        held = chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk
        held = held.cast(pa.binary()) if pa.types.is_null(held.type) else held
        wide = pa.types.is_large_binary(held.type)
        offsets = np.frombuffer(held.buffers()[1], np.int64 if wide else np.int32)[held.offset :]
        data = memoryview(held.buffers()[2] or b"")
        inside = np.asarray(held.is_valid().to_numpy(zero_copy_only=False)) & np.asarray(
            chunk.is_valid().to_numpy(zero_copy_only=False)
        )
        for position, is_inside in enumerate(inside.tolist()):
            try:
                self.parts[part].check()
                if is_inside:
                    image: Any = data[offsets[position] : offsets[position + 1]]
                else:
                    # this part names files, or may: their states count too
                    self._paths.pop(part, None)
                    image = self._bytes(chunk[position].as_py())
                yield hashlib.sha256(image).digest()
            except OSError as error:
                wrong[start + position] = error.strerror or str(error)
                yield bytes(32)

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        if value is None or (value.get("bytes") is None and value.get("path") is None):
            raise unreadable("the table holds no image in this row (null)")
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        named = str(value["path"])
        try:
            return read_regular(self._file(named))
        except OSError as error:
            reason = error.strerror or str(error)
            raise unreadable(reason if repr(named) in reason else f"the table names {named!r}: {reason}") from error

    def _file(self, named: str) -> Path:
        if self.root is None:
            raise unreadable(f"the table names the file {named!r}; here only bytes in the table are read: {REMEDY}")
        try:
            path = (self.root / named).resolve() if "\0" not in named else None
        except RuntimeError:  # Python 3.11 and 3.12; later ones tell it when the file is opened
            raise unreadable(f"the table names {named!r}, a link that leads to itself") from None
        if path is None or not path.is_relative_to(self.root):  # a table must not pick files of this machine
            raise unreadable(
                f"the table names {named!r}, a file outside the pool ({self.root}); only files inside are read:"
                f" {REMEDY}"
            )
        return path

    def _file_state(self, named: str) -> bytes:
        try:
            return (file_state(self._file(named)) if named else None) or bytes(STATE_BYTES)
        except OSError:
            return bytes(STATE_BYTES)

    def _paths_of(self, number: int) -> Texts | None:
        """Paths that a part names; None where all its images lie in it."""
        if number not in self._paths:
            part = self._at(number)
            is_struct = pa.types.is_struct(part.schema.field(self.column).type)
            inside = not is_struct or part.num_nulls(self.column, "bytes") == 0
            self._paths[number] = None if inside else Texts(part.column(self.column, "path"))
        return self._paths[number]


def ids_of(
    digests: npt.NDArray[np.uint8], unread: npt.NDArray[np.int64], rows: npt.NDArray[np.int64] | None = None
) -> Texts:
    """Ids out of digests: the first 32 hexadecimal digits, `-2`, `-3` behind further copies, `row-N` for the unread.

    Args:
        digests: uint8 [N, 32].
        unread: Rows without one, int64.
        rows: Of the table, ascending, int64 [N]; default: 0 .. N.
    """
    num = len(digests)
    rows = np.arange(num) if rows is None else rows
    unread = np.searchsorted(rows, unread)
    text = pa.py_buffer(np.ascontiguousarray(digests[:, :16]).tobytes().hex().encode())
    offsets = np.arange(0, 32 * num + 1, 32, dtype=np.int64)
    ids = pa.Array.from_buffers(pa.large_string(), num, [None, pa.py_buffer(offsets), text])
    keys = np.ascontiguousarray(digests[:, :16]).view(np.uint64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: copies stay in the order of their rows
    first = np.r_[True, (keys[order[1:]] != keys[order[:-1]]).any(1)] if num else np.zeros(0, np.bool_)
    copy = np.empty(num, np.int64)
    copy[order] = np.arange(num) - np.maximum.accumulate(np.where(first, np.arange(num), 0))
    special = np.union1d(np.flatnonzero(copy), unread)
    if not len(special):
        return Texts(ids)
    gone = set(unread.tolist())
    texts = [f"row-{rows[row]}" if row in gone else f"{ids[row].as_py()}-{copy[row] + 1}" for row in special.tolist()]
    mask = np.zeros(num, np.bool_)
    mask[special] = True
    return Texts(pc.replace_with_mask(ids, pa.array(mask), pa.array(texts, pa.large_string())))
