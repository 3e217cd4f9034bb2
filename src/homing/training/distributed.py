"""The model over several processes: gradients averaged, buffers left alone."""

from __future__ import annotations

import inspect
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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
