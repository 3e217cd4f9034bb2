"""What a pool tells by itself, kept beside the features that it follows from: found once for every target and fold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from homing.outputs.artefact import digest_of, open_whole
from homing.rates.learned.facts import PoolFacts
from homing.session import Session
from homing.training.distributed import everywhere

NAME = "pool-{}.safetensors"
_VERSION = "2"
"""Of how it is found: raised whenever the same pool comes to other facts."""


def kept_pool_facts(
    session: Session, folder: Path, made_from: dict[str, str], find: Callable[[], PoolFacts]
) -> PoolFacts:
    """What was found before from the very same things, else what is found now, which is kept.

    Args:
        session: Of the run; all its processes call this together.
        folder: Of the store of features.
        made_from: Whatever it follows from but the features themselves: pool, labels, seed.
        find: Finds it; all processes do, or none.
    """
    key = digest_of(_VERSION, *(f"{name} {value}" for name, value in sorted(made_from.items())))
    path = folder / NAME.format(key[:16])
    kept = _read(path, key)
    if everywhere(session.accelerator, kept is not None):
        assert kept is not None
        return kept
    found = find()
    if session.accelerator.is_main_process:
        with suppress(OSError), open_whole(path) as file:  # where it cannot be kept, it is found anew the next time
            file.write(save(found.tensors(), metadata={"key": key}))
    return found


def _read(path: Path, key: str) -> PoolFacts | None:
    """What is kept; None where nothing is, or where it is damaged: it is replaced then.

    A file that another run removes while it is opened is a RuntimeError of safetensors.
    """
    with suppress(SafetensorError, OSError, RuntimeError, KeyError), safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("key") == key:
            path.touch()  # of use now: what was unused for longest is evicted first
            return PoolFacts.from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return None
