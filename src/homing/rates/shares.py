"""Which share of an epoch a process takes, and whether somebody else shares it out again."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

import torch.distributed as dist
from torch.utils.data.distributed import DistributedSampler

from homing.errors import DataError

_ONCE = "rank=0, world_size=1"
_DEPTH = 16  # frames between a framework's shard and the sampler that it reads: five or so


def place_of_process(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of processes: as given, or as `torch.distributed` has them.

    Raises:
        DataError: A launcher started several processes that do not know of each other yet.
    """
    if rank is not None and world_size is not None:
        return rank, world_size
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    started = os.environ.get("WORLD_SIZE", "1")
    if started.isdigit() and int(started) > 1:
        raise DataError(
            f"WORLD_SIZE says that {started} processes were started, but torch.distributed is not initialised, and each"
            " would take the whole epoch; call init_process_group first, or give rank and world_size"
        )
    return 0, 1


def refuse_second_share(sampler: object, world_size: int, num_samples: int) -> None:
    """Look at who reads the sampler: whether it shares the epoch out a second time, or pads it.

    Args:
        sampler: That is being read.
        world_size: Processes that the sampler shares the epoch among.
        num_samples: Visits of the whole epoch.

    Raises:
        DataError: It does.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return
        reader = frame.f_locals.get("self")
        if type(reader).__name__ == "BatchSamplerShard":  # accelerate's: known by its name, accelerate need not be here
            _check_shard(reader, world_size, num_samples)
        elif isinstance(reader, DistributedSampler) and reader is not sampler:
            _check_around(reader, world_size, num_samples)
        frame = frame.f_back


def _check_around(reader: DistributedSampler[Any], world_size: int, num_samples: int) -> None:
    others = reader.num_replicas
    if others > 1 and (world_size > 1 or num_samples % others):
        harm = "rows would be lost" if world_size > 1 else f"{num_samples:,} rows are no multiple of it and are padded"
        raise DataError(
            f"{type(reader).__name__} shares the rows of this sampler out over {others} processes: {harm}; leave it"
            " away, as a RateSampler shares them out itself"
        )


def _check_shard(shard: Any, world_size: int, num_samples: int) -> None:
    others = shard.num_processes
    if others == 1:
        return
    if world_size > 1:
        raise DataError(
            f"accelerate shares the batches of this loader out over {others} processes, and the sampler has done so"
            f" already: rows would be lost; give the sampler {_ONCE}, or do not prepare the loader"
        )
    whole = shard.batch_size * (1 if shard.split_batches else others)
    if shard.even_batches and not shard.drop_last and num_samples % whole:
        raise DataError(
            f"accelerate would repeat rows to fill the last batches: {num_samples:,} rows are no multiple of {whole:,}"
            f" (batch size and processes); give the sampler num_samples={-(-num_samples // whole) * whole}, or"
            " accelerate even_batches=False"
        )
