"""A scan whose parts Ray hands out: to any number of nodes that share the store's folder, spot nodes among them.

Ray has the retries. A part that is tried again finds the shards that the first try finished, and goes on behind them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from homing.errors import DataError, Interrupted, RecipeError
from homing.features.fill import Filler
from homing.features.places import Places
from homing.features.scan import Scan, found_in, look_up, warn_of_blank
from homing.features.shards import Bytes, Kind
from homing.features.store import Store
from homing.models.inputs import ImageInputs
from homing.pools.order import Rows
from homing.progress import Progress

_RETRIES = 8  # of one part: so many nodes may be taken away under it
_PARTS_A_CORE = 4
_LOOK = 0.5  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Work:
    """What every part needs, sent to each node once.

    Attributes:
        folder: Of the store, on every node.
        kind: Of its rows.
        rows_per_shard: Of a full shard.
        marker: A file in the folder, by which a node sees that it is the same one.
        pictures: Pictures by row.
        model: None for a scan without one.
        precision: fp32 or bf16.
        batch_size: Images at a time.
    """

    folder: Path
    kind: Kind
    rows_per_shard: int
    marker: str
    pictures: ImageInputs
    model: nn.Module | None
    precision: str
    batch_size: int


def scan_with_ray(
    pictures: ImageInputs,
    rows: Rows,
    store: Store,
    *,
    model: nn.Module | None = None,
    address: str | None = None,
    precision: str = "fp32",
    batch_size: int = 64,
    verify: bool = False,
    num_cpus: float = 1,
    num_gpus: float = 0,
    progress: Progress | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
    title: str = "scan",
) -> Scan:
    """What `scan` does, on the nodes of a Ray cluster.

    Args:
        pictures: Pictures by row; their files must lie at the same paths on every node.
        rows: int64 [N].
        store: In a folder that every node shares.
        model: As for `scan`.
        address: Of the cluster; None: $RAY_ADDRESS, else one is started on this machine alone.
        precision: fp32 or bf16.
        batch_size: Images at a time.
        verify: As for `scan`.
        num_cpus: Cores that a part takes.
        num_gpus: GPUs that a part takes.
        progress: Told of the stage.
        stop_asked: Whether to stop.
        title: Of the stage.

    Raises:
        RecipeError: Ray is not installed.
        DataError: A node does not see the folder, or a part failed more often than Ray tries again.
        Interrupted: A stop was asked for; finished shards stay.
    """
    ray, progress = _ray(), progress or Progress(quiet=True)
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    places = look_up(pictures, rows, store, verify)
    todo = places.missing()
    marker = store.folder / f"meeting-{uuid.uuid4().hex}"
    marker.write_bytes(b"")
    try:
        work = Work(store.folder, store.kind, store.rows_per_shard, marker.name, pictures, model, precision, batch_size)
        remote = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=_RETRIES)(scan_some)
        sent, passed = ray.put(work), 0
        parts = _parts(todo, store.rows_per_shard, batch_size, ray.cluster_resources().get("CPU", 1) / num_cpus)
        waiting = {remote.remote(sent, rows[part], places.digests[part]): part for part in parts}
        with progress.stage(title, len(todo)) as advance:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=_LOOK)
                if stop_asked():
                    raise Interrupted("stopped in the scan; what is scanned stays")
                for one in done:
                    found, count = _result(ray, one)
                    places.put(waiting[one], found)
                    passed += count
                    advance(len(waiting.pop(one)))
    finally:
        for one in locals().get("waiting", {}):
            ray.cancel(one, force=True)
        marker.unlink(missing_ok=True)
    warn_of_blank(places, rows, pictures, progress)
    return found_in(places, rows, pictures, store, passed)


def scan_some(work: Work, rows: Rows, expected: Bytes) -> tuple[Places, int]:
    """One part, on whatever node: where its rows lie afterwards, and how many went through the model."""
    if not (work.folder / work.marker).exists():
        raise DataError(
            f"{work.folder}: a node does not see what the program writes there; all nodes need one folder that they"
            " share: set output.cache to one"
        )
    device = torch.device("cuda" if torch.cuda.is_available() and work.model is not None else "cpu")
    pictures = work.pictures.on(device)
    model = None if work.model is None else work.model.to(device).to(memory_format=torch.channels_last)
    with Store(work.folder, work.kind, rows_per_shard=work.rows_per_shard) as store:
        places = look_up(pictures, rows, store, False)
        if expected.any():  # its bytes are to be verified
            places = Places.nowhere(len(rows))
        missing = places.missing()
        filler = Filler(store, pictures, model, device, work.precision, work.batch_size)
        found, passed = filler.fill(rows[missing], lambda count: None, expected[missing])
        places.put(missing, found)
    pictures.images.close()
    return places, passed


def _parts(todo: Rows, rows_per_shard: int, batch_size: int, at_once: float) -> list[Rows]:
    size = min(rows_per_shard, max(batch_size, -(-len(todo) // max(1, int(at_once * _PARTS_A_CORE)))))
    return [todo[start : start + size] for start in range(0, len(todo), size)]


def _result(ray: Any, one: Any) -> tuple[Places, int]:
    try:
        found: tuple[Places, int] = ray.get(one)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DataError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise DataError(
            f"a part of the scan failed {_RETRIES + 1} times on Ray ({type(error).__name__}: {error})"
        ) from error
    return found


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RecipeError("--engine ray needs a package: pip install 'homing[ray]'") from error
    return ray
