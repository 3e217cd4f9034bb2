"""Which parameters are trained, how batch norms behave, and the head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from homing.errors import RecipeError

Trainable = str  # all | last_stage | head
_NORMS = (nn.modules.batchnorm._BatchNorm,)


def classifier_of(model: nn.Module) -> nn.Linear:
    """The linear head of a timm model.

    Raises:
        RecipeError: The head is not one linear layer (distilled or convolutional heads).
    """
    head = cast(Any, model).get_classifier()
    if not isinstance(head, nn.Linear):
        raise RecipeError(
            f"model.backbone: its head is {type(head).__name__}, not one linear layer; training the head alone,"
            " and starting it from the probe, need a linear head: set model.trainable: all and model.head_init: random"
        )
    return head


def set_trainable(model: nn.Module, trainable: Trainable) -> None:
    """Let gradients flow to all parameters, to the last stage and the head, or to the head alone.

    Frozen parameters in front need no graph: autograd keeps nothing of a part whose inputs and parameters are frozen.
    """
    if trainable == "all":
        model.requires_grad_(True)
        return
    model.requires_grad_(False)
    names = set(last_stage_names(model)) if trainable == "last_stage" else set()
    head = cast(Any, model).get_classifier()
    for part in head if isinstance(head, tuple) else (head,):
        part.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(True)


def last_stage_names(model: nn.Module) -> list[str]:
    """Parameters of the last stage and of all that follows it, by timm's own layer groups.

    Hierarchical models: the last stage. Plain stacks (8 or more equal blocks): the last quarter of them.
    """
    from timm.models._manipulate import group_with_matcher

    matcher = cast(Any, model).group_matcher(coarse=True)
    groups: dict[Any, list[str]] = group_with_matcher(model.named_parameters(), matcher)
    ordered = [groups[key] for key in sorted(groups)]
    depth = len(ordered) - 1  # the first group is the stem
    return [name for group in ordered[-max(1, depth // 4 if depth >= 8 else 1) :] for name in group]


def set_training_mode(model: nn.Module, batch_norm: str) -> None:
    """Training mode, but with the statistics of batch norms held where they are not to change."""
    model.train()
    if batch_norm != "train":
        for module in batch_norms(model):
            module.eval()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The recipe's precision (fp32 or bf16) as a context; a launcher's own setting does not change it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Every batch norm in the model."""
    return (module for module in model.modules() if isinstance(module, _NORMS))


@torch.no_grad()
def adapt_batch_norms(model: nn.Module, batches: Iterator[Tensor]) -> None:
    """Re-estimate the statistics of all batch norms as the plain average over some batches (AdaBN, Li et al. 2016)."""
    norms = [cast(Any, module) for module in batch_norms(model)]
    momenta = [module.momentum for module in norms]
    model.eval()
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # torch then keeps the plain average
        module.train()
    for images in batches:
        model(images)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()
