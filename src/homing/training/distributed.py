"""Several processes: one model with averaged gradients, one answer to a question, one error for all."""

from __future__ import annotations

import atexit
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from homing.errors import DataError, HomingError
from homing.models.parts import batch_norms
from homing.rates.table_rows import all_gather, is_alone, on_group_device

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


def anywhere(accelerator: Accelerator, *holds: Tensor | bool) -> list[bool]:
    """Of several questions, whether any process says yes; one message and one synchronisation for all of them.

    Args:
        accelerator: The processes; all of them call this together, with as many questions.
        holds: Bools, or bool scalars on the device.
    """
    if all(isinstance(one, bool) for one in holds) and accelerator.num_processes == 1:
        return [bool(one) for one in holds]
    flags = torch.stack([torch.as_tensor(one, device=accelerator.device).float() for one in holds])
    if accelerator.num_processes > 1:
        flags = on_group_device(flags)
        dist.all_reduce(flags)
    return [count > 0 for count in flags.tolist()]


def everywhere(accelerator: Accelerator, holds: Tensor | bool) -> bool:
    """Whether something holds in every process; a bool or a bool scalar on the device."""
    denied = not holds if isinstance(holds, bool) else ~holds
    return not anywhere(accelerator, denied)[0]


def agree(accelerator: Accelerator, what: str, digest: str) -> None:
    """Make sure that all processes see the same; each of them says so where they do not.

    Args:
        accelerator: The processes; all of them call this together.
        what: They look at, for the message: "the pools".
        digest: Of what this process sees.

    Raises:
        DataError: Some see something else than most do, in every process.
    """
    if accelerator.num_processes == 1:
        return
    seen: list[str] = gather_object([hashlib.sha256(digest.encode()).hexdigest()])
    usual = max(seen, key=lambda one: (seen.count(one), one == seen[0]))
    others = [str(rank) for rank, one in enumerate(seen) if one != usual]
    if others:
        error = DataError(
            f"process{'es' if len(others) > 1 else ''} {', '.join(others)} of {len(seen)} found {what} to be different"
            " from what the other processes found; give all of them the same files, and let nothing change these while"
            " a run lasts"
        )
        error.shared = True
        raise error


def gather_shares(parts: list[Tensor], total: int, accelerator: Accelerator) -> Tensor:
    """Rows dealt out as `rows[rank::num_ranks]`, put together again in order; [total, ...] on the CPU.

    Args:
        parts: What this process has of them, one after the other; a process without a row gives none.
        total: Rows of all processes.
        accelerator: The processes; all of them call this together.
    """
    if accelerator.num_processes == 1:
        return torch.cat(parts)
    mine, world = torch.cat(parts) if parts else None, accelerator.num_processes
    known = gather_object([None if mine is None else (mine.shape[1:], mine.dtype)])
    shape, dtype = next(one for one in known if one is not None)
    longest = -(-total // world)
    padded = torch.zeros(longest, *shape, dtype=dtype)
    if mine is not None:
        padded[: len(mine)] = mine
    gathered = on_group_device(torch.empty(world * longest, *shape, dtype=dtype))
    all_gather(gathered, on_group_device(padded))
    # row i of the whole is row i // world of process i % world
    return gathered.cpu().view(world, longest, *shape).transpose(0, 1).reshape(-1, *shape)[:total]


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of what all processes hold, scalar on the CPU; all of them call this together, if with no value."""
    if is_alone():
        return values.mean()
    sums = on_group_device(torch.stack([values.double().sum(), torch.tensor(float(len(values)), dtype=torch.float64)]))
    dist.all_reduce(sums)
    total, count = sums.tolist()
    return torch.tensor(total / max(count, 1.0), dtype=values.dtype)


@torch.no_grad()
def pool_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Running means and variances of batch norms, averaged over processes; all of them call this together.

    Each of them is a running average over the batches of its own process, and their average one over all batches: it
    does not matter how often this is done.
    """
    if accelerator.num_processes == 1:
        return
    running = [
        buffer
        for norm in batch_norms(model)
        for buffer in (getattr(norm, "running_mean", None), getattr(norm, "running_var", None))
        if isinstance(buffer, Tensor)
    ]
    if not running:
        return
    together = on_group_device(torch.cat([buffer.flatten().double() for buffer in running]))
    dist.all_reduce(together)
    together /= accelerator.num_processes
    for buffer, values in zip(running, torch.split(together, [buffer.numel() for buffer in running]), strict=True):
        buffer.copy_(values.view_as(buffer))
