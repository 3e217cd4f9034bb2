"""Several processes: one model with averaged gradients, one answer to a question, one error for all."""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from homing.errors import HomingError

_Result = TypeVar("_Result")


@atexit.register
def leave_group() -> None:
    """Take leave of the other processes before the interpreter goes.

    Threads of a group that is still open are torn down with the interpreter, and now and then end the process by
    SIGABRT when another process has gone first.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def over_processes(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The model itself in a single process, else wrapped so that backward passes average its gradients.

    Buffers are not broadcast before each forward pass: batch norms are frozen, and writing to their statistics between
    two forward passes of one step would break the first one's graph.
    """
    if accelerator.num_processes == 1:
        return model
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # torch 2.14
    quiet: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, **quiet)


def on_main(accelerator: Accelerator, action: Callable[[], _Result]) -> _Result:
    """What the main process makes of an action, in every process; its error too, so that nobody waits in vain."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except (HomingError, OSError) as error:
            if accelerator.num_processes == 1:
                raise
            outcome[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        outcome[1].shared = True
        raise outcome[1]
    return cast(_Result, outcome[0])


def everywhere(accelerator: Accelerator, holds: Tensor | bool) -> bool:
    """Whether something holds in every process; a bool or a bool scalar on the device."""
    if accelerator.num_processes == 1:
        return bool(holds)
    flag = torch.as_tensor(holds, device=accelerator.device).float()
    return bool(cast(Tensor, accelerator.reduce(flag, reduction="sum")) == accelerator.num_processes)


def agree(accelerator: Accelerator, what: str, digest: str) -> None:
    """TEMPORARY."""


def gather_shares(parts: list[Tensor], total: int, accelerator: Accelerator) -> Tensor:
    """Rows dealt out as `rows[rank::num_ranks]`, put together again in order; float [total, ...] on the CPU."""
    from accelerate.utils import gather_object

    if accelerator.num_processes == 1:
        return torch.cat(parts)
    shares = gather_object([torch.cat(parts)] if parts else [None])
    example = next(share for share in shares if share is not None)
    whole = torch.empty(total, *example.shape[1:], dtype=example.dtype)
    for rank, share in enumerate(shares):
        if share is not None:
            whole[rank :: accelerator.num_processes] = share
    return whole
