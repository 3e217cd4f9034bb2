"""Looks of the pictures that were decoded in scans, kept beside the features: by the digest of each image's bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from homing.features.shards import Bytes
from homing.outputs.artefact import digest_of, open_whole
from homing.pools.looks import Looks

_MANY = 8  # files: so many become one
_NAME = "pool-looks-{}.safetensors"
"""One file a shard; facts of pools, as the cache counts and removes them."""


class KeptLooks:
    """What was seen since the last `keep`. folder: of the store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: list[Looks] = []
        self._looks: list[Looks] = []

    def add(self, digests: Bytes, looks: Looks) -> None:
        """Some pictures. digests: uint8 [m, 8 or more]; looks: [m]."""
        if len(looks):
            self._digests.append(_key(digests))
            self._looks.append(looks)

    def keep(self) -> None:
        """Write what was seen; where that cannot be done, pictures are not compared, which ends no scan."""
        if not self._looks:
            return
        files = sorted(self._folder.glob(_NAME.format("*")))
        merged = files if len(files) >= _MANY else []
        for digests, looks in map(_read, merged):
            self._digests.append(digests)
            self._looks.append(looks)
        digests, looks = np.concatenate(self._digests), np.concatenate(self._looks)
        self._digests, self._looks = [], []
        tensors = {"digests": torch.from_numpy(digests.view(np.int64)), "looks": torch.from_numpy(looks.view(np.int64))}
        path = self._folder / _NAME.format(digest_of(digests.tobytes().hex())[:16])
        with suppress(OSError):
            with open_whole(path) as file:
                file.write(save(tensors))
            for old in merged:
                old.unlink(missing_ok=True)


def kept_looks(folder: Path, digests: Bytes) -> Looks:
    """Looks of pictures as far as they were decoded in scans into a store, 0 of the others.

    Args:
        folder: Of the store.
        digests: uint8 [N, 8 or more], beginning of the sha256 of each image's bytes.
    """
    wanted, found = _key(digests), np.zeros(len(digests), np.uint64)
    for path in sorted(folder.glob(_NAME.format("*"))):
        keys, looks = _read(path)
        if not len(keys):
            continue
        order = np.argsort(keys)
        place = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
        here = keys[place] == wanted
        found[here] = looks[place[here]]
        with suppress(OSError):
            path.touch()  # of use now: what was unused for longest is evicted first
    return found


def _read(path: Path) -> tuple[Looks, Looks]:
    """Keys and looks; none where the file is damaged, or gone."""
    with suppress(OSError, SafetensorError, KeyError):
        tensors = load(path.read_bytes())  # opened once: another run may remove it between two looks
        return tensors["digests"].numpy().view(np.uint64), tensors["looks"].numpy().view(np.uint64)
    return np.zeros(0, np.uint64), np.zeros(0, np.uint64)


def _key(digests: Bytes) -> Looks:
    key: Looks = np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
    return key
