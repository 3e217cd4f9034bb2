"""A rate table's file: per-row state under 16-byte digests of the sample ids, in safetensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from homing.errors import CheckpointError, DataError

_FORMAT = {"format": "homing-rate-table", "version": "1"}
_MOMENTS = ("seen", "centre", "square")


def write_table(path: Path, ids: Sequence[str], state: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
    """Write the state of every row and the running moments; the file appears whole or not at all.

    Raises:
        DataError: Not one id per row, or ids occur twice.
    """
    tensors = {"id": torch.from_numpy(digests(ids, len(state["rate"]))), **state, **moments}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata=_FORMAT)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_table(
    path: Path, ids: Sequence[str], columns: Mapping[str, torch.dtype]
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Read a table file and find the ids in it.

    Returns:
        The saved columns; the running moments; and positions (in `ids`, in the file) of the ids that both have.

    Raises:
        CheckpointError: The file is damaged or of another kind.
        DataError: Ids occur twice.
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
    return saved, moments, match(digests(ids, len(ids)), found.numpy())


def digests(ids: Sequence[str], num_rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A 128-bit digest of each id, int64 [N, 2]: ids of any length at 16 bytes a row.

    Raises:
        DataError: Not one id per row, or ids occur twice.
    """
    if len(ids) != num_rows:
        raise DataError(f"{len(ids)} ids for {num_rows} rows; give one id per row")
    raw = b"".join(hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids)
    keys = np.frombuffer(raw, dtype=np.int64).reshape(-1, 2).copy()
    order = np.lexsort(keys.T)
    same = (keys[order][1:] == keys[order][:-1]).all(1)
    if same.any():
        first = int(order[int(np.argmax(same))])
        raise DataError(f"the id {ids[first]!r} occurs twice; ids must be unique for a rate to follow its sample")
    return keys


def match(
    mine: np.ndarray[tuple[int, int], np.dtype[np.int64]], theirs: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> tuple[Tensor, Tensor]:
    """Positions of the keys that both have, int64 [k] in each; keys are unique on either side."""
    keys = np.concatenate([mine, theirs])
    side = np.repeat([0, 1], [len(mine), len(theirs)])
    order = np.lexsort((side, keys[:, 1], keys[:, 0]))
    pairs = (keys[order][1:] == keys[order][:-1]).all(1).nonzero()[0]
    return torch.from_numpy(order[pairs]), torch.from_numpy(order[pairs + 1] - len(mine))
