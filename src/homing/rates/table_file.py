"""A rate table's file: per-row state under 16-byte digests of the sample ids, in safetensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from homing.errors import CheckpointError, DataError

_FORMAT = {"format": "homing-rate-table", "version": "1"}
_MOMENTS = ("seen", "centre", "square")
_CHUNK = 1 << 16  # ids at a time
Keys = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def write_table(path: Path, ids: Sequence[str], state: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
    """Write the state of every row and the running moments; the file appears whole or not at all.

    Raises:
        DataError: Not one id per row, ids occur twice, or the file cannot be written.
    """
    check_folder(path)
    tensors = {"id": torch.from_numpy(digests(ids, len(state["rate"]))), **state, **moments}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, temporary, metadata=_FORMAT)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What a disk refuses to take is told with the file.

    Raises:
        DataError: It does.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter: its writer tells of the system's errors in words alone
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be written ({reason}); make room, or give another path") from error


def read_table(
    path: Path, ids: Sequence[str], columns: Mapping[str, torch.dtype], num_rows: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Read a table file and find the ids in it.

    Returns:
        The saved columns; the running moments; and positions (in `ids`, in the file) of the ids that both have.

    Raises:
        CheckpointError: The file is damaged or of another kind.
        DataError: Not one id per row, or ids occur twice.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}) != _FORMAT:
                raise CheckpointError(f"{path} is not a rate table of version {_FORMAT['version']}")
            saved = {name: file.get_tensor(name) for name in ("id", *columns, *_MOMENTS)}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a rate table: {error}") from error
    found = saved.pop("id")
    for name, dtype in columns.items():
        if saved[name].dtype != dtype or saved[name].shape != found.shape[:1]:
            raise CheckpointError(
                f"{path}: column {name} is {saved[name].dtype} {tuple(saved[name].shape)}; it is damaged"
            )
    moments = {name: saved.pop(name) for name in _MOMENTS}
    return saved, moments, match(digests(ids, num_rows), found.numpy())


def digests(ids: Sequence[str], num_rows: int) -> Keys:
    """A 128-bit digest of each id, int64 [N, 2]: ids of any length at 16 bytes a row.

    Raises:
        DataError: Not one id per row, or ids occur twice.
    """
    ids = by_position(ids)
    if len(ids) != num_rows:
        raise DataError(f"{len(ids)} ids for {num_rows} rows; give one id per row")
    check_texts(ids, "ids")
    return check_unique(digests_of(ids), ids)


def by_position(ids: Sequence[str]) -> Sequence[str]:
    """The same, where a pandas Series would be asked by its index.

    Raises:
        DataError: They have no order.
    """
    values: Any = ids
    if not hasattr(values, "__len__") or isinstance(values, Set | Mapping):
        raise DataError(f"ids are of the type {type(ids).__name__}; give a list of str, one for each row")
    return values.to_numpy() if hasattr(values, "iloc") else ids


def check_texts(values: Sequence[str], what: str) -> None:
    """Refuse a single text, and sequences of something else than texts, by a look at the first of them.

    Raises:
        DataError: They are no texts.
    """
    found: Any = values if isinstance(values, str | bytes) else next(iter(values), "")
    if found is values or not isinstance(found, str):
        raise DataError(
            f"{what} are no texts: {'a single one is given' if found is values else f'the first of them is {found!r}'};"
            " give a list of str, one for each row"
        )


def check_folder(path: Path) -> None:
    """Refuse a file whose folder is not there, or that is one itself.

    Raises:
        DataError: So it is.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the file to write")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder for {path.name}; make it first")


def digests_of(ids: Sequence[str], start: int = 0, stop: int | None = None, prefix: str = "") -> Keys:
    """A 128-bit digest of each id of a stretch behind a prefix, int64 [stop - start, 2]; 16 bytes a row and no list.

    Args:
        ids: Any sequence; columns of Arrow (`to_arrow()`) are read in pieces.
        start: First row.
        stop: Row after the last; None: the last.
        prefix: Set before each id.
    """
    stop = len(ids) if stop is None else stop
    keys = np.empty((stop - start, 2), np.int64)
    column = ids.to_arrow() if hasattr(ids, "to_arrow") else None
    begun = hashlib.blake2b(prefix.encode(), digest_size=16)
    for first in range(start, stop, _CHUNK):
        last = min(stop, first + _CHUNK)
        texts = ids[first:last] if column is None else column.slice(first, last - first).to_pylist()
        raw = bytearray()
        for text in texts:
            digest = begun.copy()
            try:
                digest.update(text.encode(errors="surrogatepass"))
            except AttributeError:
                raise DataError(f"the id {text!r} is no text; give a str for each row") from None
            raw += digest.digest()
        keys[first - start : last - start] = np.frombuffer(raw, dtype=np.int64).reshape(-1, 2)
    return keys


def check_unique(keys: Keys, ids: Sequence[str]) -> Keys:
    """The keys, if no two of them are the same.

    Raises:
        DataError: Ids occur twice; names one.
    """
    halves = np.sort(keys[:, 0])
    if not (halves[1:] == halves[:-1]).any():
        return keys
    order = np.lexsort(keys.T)
    same = (keys[order][1:] == keys[order][:-1]).all(1)
    if same.any():
        first = int(order[int(np.argmax(same))])
        raise DataError(f"the id {ids[first]!r} occurs twice; ids must be unique for a rate to follow its sample")
    return keys


def match(mine: Keys, theirs: Keys) -> tuple[Tensor, Tensor]:
    """Positions of the keys that both have, int64 [k] in each; keys are unique on either side."""
    keys = np.concatenate([mine, theirs])
    side = np.repeat([0, 1], [len(mine), len(theirs)])
    order = np.lexsort((side, keys[:, 1], keys[:, 0]))
    pairs = (keys[order][1:] == keys[order][:-1]).all(1).nonzero()[0]
    return torch.from_numpy(order[pairs]), torch.from_numpy(order[pairs + 1] - len(mine))
