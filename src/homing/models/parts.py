"""Which parameters are trained, how batch norms behave, and the head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from homing.errors import RecipeError

Trainable = str  # all | last_stage | head
_MIN_STAGE = 5  # tensors
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
            " starting it from the probe, and data.source.labels: other need a linear head: set model.trainable: all"
            " and model.head_init: random, or take another backbone"
        )
    return head


@torch.no_grad()
def keep_outputs(model: nn.Module, count: int) -> None:
    """Cut the linear head of a timm model down to its first outputs."""
    head = classifier_of(model)
    head.weight = nn.Parameter(head.weight[:count].clone())
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias[:count].clone())
    head.out_features = cast(Any, model).num_classes = count


def classifiers_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """The heads of a timm model: one, or two where it was distilled."""
    head = cast(Any, model).get_classifier()
    return head if isinstance(head, tuple) else (head,)


def set_trainable(model: nn.Module, trainable: Trainable) -> None:
    """Let gradients flow to all parameters, to the last stage and the head, or to the head alone.

    Frozen parameters in front need no graph: autograd keeps nothing of a part whose inputs and parameters are frozen.
    """
    if trainable == "all":
        model.requires_grad_(True)
        return
    model.requires_grad_(False)
    names = set(last_stage_names(model)) if trainable == "last_stage" else set()
    for part in classifiers_of(model):
        part.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(True)


def last_stage_names(model: nn.Module) -> list[str]:
    """Parameters of the last stage and of all that follows it but the head, by timm's own layer groups.

    Hierarchical models: the last stage. Plain stacks (8 or more blocks): the last quarter of them. Groups of a few
    tensors (a lone norm or convolution) are no stage, and are taken along.
    """
    from timm.models._manipulate import group_with_matcher

    head = {id(parameter) for part in classifiers_of(model) for parameter in part.parameters()}
    body = ((name, parameter) for name, parameter in model.named_parameters() if id(parameter) not in head)
    groups: dict[Any, list[str]] = group_with_matcher(body, cast(Any, model).group_matcher(coarse=True))
    stages = [groups[key] for key in sorted(groups)][1:]  # the first group is the stem
    num_real = sum(len(names) >= _MIN_STAGE for names in stages)
    wanted = num_real // 4 if num_real >= 8 else 1
    chosen: list[str] = []
    while stages and wanted > 0:
        names = stages.pop()
        chosen = names + chosen
        wanted -= len(names) >= _MIN_STAGE
    return chosen


def set_training_mode(model: nn.Module, batch_norm: str) -> None:
    """Training mode, but with the statistics of batch norms held where they are not to change."""
    model.train()
    if batch_norm != "train":
        for module in batch_norms(model):
            module.eval()


@contextmanager
def lone_sample_held(model: nn.Module, batch_size: int) -> Iterator[None]:
    """For a batch of one sample, which has no statistics of its own, batch norms use what they have gathered so far."""
    held = [module for module in batch_norms(model) if module.training] if batch_size == 1 else []
    for module in held:
        module.eval()
    try:
        yield
    finally:
        for module in held:
            module.train()


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
