"""What lies under a wrapped model, and the names that its parameters have there."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from homing.rates.alignment.error import AlignmentError


def unwrap(model: nn.Module) -> nn.Module:
    """Strip `DistributedDataParallel` and `torch.compile` wrappers.

    Raises:
        AlignmentError: The model is wrapped in something whose parameters or calls are not the model's own.
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
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        raise AlignmentError(
            "this model's parameters are sharded (FSDP or tensor parallel), so no process holds a whole one; "
            "alignments support DistributedDataParallel and single processes"
        )
    if type(model).__name__ in {"RecursiveScriptModule", "ScriptModule", "TopLevelTracedModule"}:
        raise AlignmentError(
            "a scripted or traced model runs outside of Python, where its calls cannot be followed; "
            "pass the model that it was made from"
        )
    return model


def is_compiled(model: nn.Module) -> bool:
    """Whether any part of the model runs through `torch.compile`."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by their name in the unwrapped model."""
    return {name: p for name, p in unwrap(model).named_parameters() if p.requires_grad}
