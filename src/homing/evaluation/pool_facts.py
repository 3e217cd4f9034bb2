"""What a pool tells by itself, kept beside the features that it follows from: found once for every target and fold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from homing.outputs.artefact import digest_of, open_whole
from homing.rates.learned.facts import PoolFacts

NAME = "pool-{}.safetensors"
_VERSION = "1"
"""Of how it is found: raised whenever the same pool comes to other facts."""


def kept_pool_facts(folder: Path, made_from: dict[str, str], find: Callable[[], PoolFacts]) -> PoolFacts:
    """What was found before from the very same things, else what is found now, which is kept.

    Args:
        folder: Of the store of features.
        made_from: Whatever it follows from but the features themselves: pool, labels, seed.
        find: Finds it.
    """
    key = digest_of(_VERSION, *(f"{name} {value}" for name, value in sorted(made_from.items())))
    path = folder / NAME.format(key[:16])
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") == key:
                return PoolFacts.from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (FileNotFoundError, SafetensorError, OSError, KeyError):  # a damaged one is replaced
        pass
    found = find()
    try:
        with open_whole(path) as file:
            file.write(save(found.tensors(), metadata={"key": key}))
    except OSError:  # it is found anew the next time
        pass
    return found
