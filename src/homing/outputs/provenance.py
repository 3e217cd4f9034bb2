"""What an output was made from, and by what: sizes and digests of pools, versions of libraries."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from homing.pools.pool import Pool

_LIBRARIES = ("torch", "timm", "datasets", "accelerate", "scikit-learn")


def describe_data(by_role: Mapping[str, Pool], classes: Sequence[str]) -> dict[str, Any]:
    """Sizes and digests of the pools of some roles, and the classes in the order of the model's outputs."""
    described: dict[str, Any] = {
        role: {"name": pool.name, "num_samples": len(pool), "digest": pool.digest()} for role, pool in by_role.items()
    }
    return {"test": None, **described, "classes": list(classes)}


def versions() -> dict[str, str]:
    """What ran, and on what."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
    return {**found, "platform": platform.platform(), "threads": str(torch.get_num_threads())}
