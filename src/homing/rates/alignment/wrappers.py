"""What lies under a wrapped model, and the names that its parameters have there."""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from homing.rates.alignment.error import AlignmentError


def unwrap(model: nn.Module) -> nn.Module:
    """Strip `DistributedDataParallel` and `torch.compile` wrappers.

    Raises:
        AlignmentError: The model is sharded, or wrapped in something whose parameters or calls are not the model's own.
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]  # torch.compile's OptimizedModule
        else:
            break
    if isinstance(model, DataParallel):
        raise AlignmentError(
            "torch.nn.DataParallel copies the model to several devices in each step, and the copies' "
            "parameters have no names; wrap the model in DistributedDataParallel instead"
        )
    refuse_sharded(model)
    if type(model).__name__ in {"RecursiveScriptModule", "ScriptModule", "TopLevelTracedModule"}:
        raise AlignmentError(
            "a scripted or traced model runs outside of Python, where its calls cannot be followed; "
            "pass the model that it was made from"
        )
    return model


def refuse_sharded(model: nn.Module) -> None:
    """Refuse a model whose parameters are sharded by now: `fully_shard` works in place, at any time.

    Raises:
        AlignmentError: A part is sharded, or a parameter is a `DTensor`.
    """
    fsdp, tensors = (sys.modules.get(f"torch.distributed.{name}") for name in ("fsdp", "tensor"))
    kinds = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel) if fsdp else ()
    if tensors is None:
        return  # never imported, so that nothing can be sharded
    if any(
        # Parameters alone do not tell: between a forward and a backward pass they may be whole.
        isinstance(module, kinds) or any(isinstance(p, tensors.DTensor) for p in module._parameters.values())
        for module in model.modules()
    ):
        raise AlignmentError(
            "this model's parameters are sharded (fully_shard, FSDP or tensor parallel), so no process holds a whole "
            "one and directions and alignments cannot be taken; use DistributedDataParallel or a single process"
        )


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """What `torch.compile` made runs as plain Python meanwhile, be it the model, a part, or a function around it."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes a second
        return contextlib.nullcontext()
    eager: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by their name in the unwrapped model."""
    return {name: p for name, p in unwrap(model).named_parameters() if p.requires_grad}
