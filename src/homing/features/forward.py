"""Pooled features of a frozen timm model: what its head sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from homing.models.backbone import Preprocessing
from homing.models.parts import autocast

_Rest = TypeVar("_Rest")


def features_of(model: nn.Module, images: Tensor, device: torch.device, precision: str, batch_size: int = 1) -> Tensor:
    """What the head sees of some images [B, 3, S, S]; float32 [B, D] on the CPU.

    Args:
        model: Of timm.
        images: As the model takes them.
        device: Where both are.
        precision: fp32 or bf16.
        batch_size: Fewer images than that are filled up. Kernels are chosen by the size of a batch and
            round differently; in batches of one size, features do not depend on what else is in the batch.
    """
    return _pooled(model, _filled(images, batch_size), device, precision)[: len(images)].cpu()


@torch.inference_mode()
def feature_width(model: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: str = "fp32") -> int:
    """Numbers that the head sees of an image; `num_features` of timm says another number for some models."""
    training = model.training
    model.eval()
    size = preprocessing.size
    width = _pooled(model, torch.zeros(1, 3, size, size, device=device), device, precision).shape[1]
    model.train(training)
    return int(width)


def forward(
    model: nn.Module, batches: Iterable[tuple[Tensor, _Rest]], device: torch.device, precision: str, batch_size: int
) -> Iterator[tuple[Tensor | None, _Rest]]:
    """Features of each batch of images, float32 [B, D] on the CPU; None for a batch of none.

    They are those of `features_of`, however few images a batch has.
    On a GPU the features of a batch are taken after the next one was sent, so that it never waits for the program.
    """
    before: tuple[Tensor | None, Any, _Rest] | None = None
    for images, rest in batches:
        with torch.inference_mode():
            filled = _filled(images, batch_size)
            found = _pooled(model, filled, device, precision)[: len(images)] if len(images) else None
        on_its_way = _fetch(found)
        if before is not None:
            yield _arrived(*before)
        before = (*on_its_way, rest)
        if device.type != "cuda":
            yield _arrived(*before)
            before = None
    if before is not None:
        yield _arrived(*before)


def _filled(images: Tensor, batch_size: int) -> Tensor:
    """The last image over and over; slices of a tensor are joined in its own memory format."""
    return torch.cat([images, *[images[-1:]] * (batch_size - len(images))]) if len(images) else images


def _pooled(model: nn.Module, images: Tensor, device: torch.device, precision: str) -> Tensor:
    timm_model = cast(Any, model)
    with autocast(device, precision):
        features = timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
    return cast(Tensor, features.float())


def _fetch(features: Tensor | None) -> tuple[Tensor | None, Any]:
    """Start to copy features to the CPU; what says that they have come."""
    if features is None or features.device.type != "cuda":
        return features, None
    here = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    here.copy_(features, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return here, event


def _arrived(features: Tensor | None, event: Any, rest: _Rest) -> tuple[Tensor | None, _Rest]:
    if event is not None:
        event.synchronize()
    return features, rest
