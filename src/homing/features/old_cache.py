"""Scanned features kept for the next run over the same images with the same backbone.

An entry's name is a digest of everything that features depend on: the bytes of all images in their order, the
backbone's weights, the preprocessing, the precision, the libraries. Where any of it changed there is no such entry, so
nothing stale can ever be read. Labels and the head are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from homing.features.old_scan import Scanned
from homing.models.backbone import Preprocessing
from homing.models.parts import classifiers_of
from homing.pools.images import BadImage

_LIBRARIES = ("torch", "timm", "pillow")


def user_cache() -> Path:
    """Where features are kept unless a recipe says otherwise: $HOMING_CACHE, else below the user's cache folder."""
    if own := os.environ.get("HOMING_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "homing"


class FeatureCache:
    """A folder of entries, bounded in size: the ones unused for longest go first.

    Args:
        folder: Made when something is kept.
        max_bytes: Of all entries together; a larger one is not kept at all.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def load(self, key: str) -> Scanned | None:
        """An entry, or None where there is none, or a damaged one (which is removed)."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                about, features = file.metadata() or {}, file.get_tensor("features")
            if about.get("key") != key or about.get("sha256") != _digest(features):
                raise ValueError("not what was written")
            bad = [BadImage(row, name, reason) for row, name, reason in json.loads(about["bad"])]
            _touch(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)
            return None
        return Scanned(features, bad)

    def save(self, key: str, scanned: Scanned) -> None:
        """Keep an entry, and let go of the ones unused for longest until all fit.

        Raises:
            OSError: The folder cannot be written to.
        """
        bad = [(item.row, item.name, item.reason) for item in scanned.bad]
        features = scanned.features.contiguous()
        if features.nbytes > self.max_bytes:
            return
        about = {"key": key, "sha256": _digest(features), "bad": json.dumps(bad)}
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".{key}.{os.getpid()}.tmp"
        try:
            unfinished.write_bytes(save({"features": features}, metadata=about))
            _touch(unfinished)
            os.replace(unfinished, self._path(key))
        finally:
            unfinished.unlink(missing_ok=True)
        self._shrink(spare=self._path(key))

    def entries(self) -> list[tuple[Path, int]]:
        """Files and their bytes, the longest unused first."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            try:
                about = path.stat()
            except FileNotFoundError:  # another run let go of it
                continue
            found.append((about.st_mtime, path, about.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def clear(self) -> tuple[int, int]:
        """Remove all entries; returns how many, and their bytes together."""
        found = self.entries()
        for path, _ in found:
            path.unlink(missing_ok=True)
        return len(found), sum(size for _, size in found)

    def _shrink(self, spare: Path) -> None:
        found = self.entries()
        total = sum(size for _, size in found)
        for path, size in found:
            if total <= self.max_bytes:
                return
            if path != spare:
                path.unlink(missing_ok=True)
                total -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


class HeldFeatures:
    """The newest entry held in memory, for runs of one process over the same source; all others as the cache has them.

    Args:
        cache: Where entries go as well; None for nowhere.
    """

    def __init__(self, cache: FeatureCache | None) -> None:
        self.cache = cache
        self.folder = Path("memory") if cache is None else cache.folder
        self._key = ""
        self._entry: Scanned | None = None

    def load(self, key: str) -> Scanned | None:
        """An entry, or None where there is none."""
        if key != self._key:
            self._key, self._entry = key, None if self.cache is None else self.cache.load(key)
        return self._entry

    def save(self, key: str, scanned: Scanned) -> None:
        """Hold an entry, and keep it."""
        self._key, self._entry = key, scanned
        if self.cache is not None:
            self.cache.save(key, scanned)


def feature_key(images_digest: str, model: nn.Module, preprocessing: Preprocessing, settings: Mapping[str, Any]) -> str:
    """Digest of everything that features depend on, 64 hexadecimal digits.

    Args:
        images_digest: Of the images' bytes, `Images.digest`.
        model: The backbone; its head is left out.
        preprocessing: From canvas to input.
        settings: What else matters: precision, largest picture.
    """
    parts = {
        "images": images_digest,
        "backbone": backbone_digest(model),
        "preprocessing": asdict(preprocessing),
        "settings": dict(settings),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def backbone_digest(model: nn.Module) -> str:
    """sha256 over the class, names and values of a model without its head, 64 hexadecimal digits."""
    head = {id(value) for part in classifiers_of(model) for value in part.state_dict(keep_vars=True).values()}
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in head:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def _touch(path: Path) -> None:
    """Note when an entry was last of use, to the nanosecond: a file system's own clock is coarser."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _digest(features: Tensor) -> str:
    return hashlib.sha256(_bytes(features)).hexdigest()


def _bytes(value: Tensor) -> memoryview:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
