"""The scan: features of every row, once, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.errors import RecipeError
from homing.models.inputs import ImageInputs, Inputs, batches_of
from homing.models.parts import autocast, classifier_of
from homing.pools.images import BadImage
from homing.pools.order import Rows


@dataclass(frozen=True)
class Scanned:
    """What a scan found. Rows of `features` and of `bad` count within the rows that were scanned.

    Attributes:
        features: float32 [N, D] on the CPU; NaN for images that cannot be read.
        bad: Those images.
    """

    features: Tensor
    bad: list[BadImage]


@torch.inference_mode()
def scan(
    model: nn.Module,
    pictures: ImageInputs,
    rows: Rows,
    accelerator: Accelerator,
    *,
    precision: str = "fp32",
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda count: None,
) -> Scanned:
    """What the head sees of each row: pooled features of the frozen model, without augmentation.

    Each process computes its share; all of them get the whole.

    Args:
        model: A timm model, in evaluation mode while this runs.
        pictures: Pictures by row.
        rows: Rows to scan, int64 [N].
        accelerator: Device and processes.
        precision: fp32 or bf16.
        batch_size: Of one process.
        advance: Called with the number of rows done, over all processes.
    """
    training = model.training
    model.eval()
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    batches, parts, bad = list(batches_of(mine, batch_size)), [], []
    for batch, (images, unreadable) in zip(batches, pictures.scanning(batches), strict=True):
        good = ~np.isin(batch, [item.row for item in unreadable])
        features = torch.full((len(batch), cast(Any, model).num_features), torch.nan)
        if good.any():
            part = features_of(model, images, accelerator.device, precision)
            features = torch.full((len(batch), part.shape[1]), torch.nan)
            features[torch.from_numpy(good)] = part
        parts.append(features)
        bad += unreadable
        advance(len(batch) * accelerator.num_processes)
    model.train(training)
    return Scanned(gather_shares(parts, len(rows), accelerator), _gather_bad(bad, rows, accelerator))


def features_of(model: nn.Module, images: Tensor, device: torch.device, precision: str) -> Tensor:
    """What the head sees of some images [B, 3, S, S]; float32 [B, D] on the CPU."""
    timm_model = cast(Any, model)
    with autocast(device, precision):
        features = timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
    return cast(Tensor, features.float().cpu())


def _gather_bad(bad: list[BadImage], rows: Rows, accelerator: Accelerator) -> list[BadImage]:
    """Bad images of all processes, in the order of the rows scanned, counted within them."""
    from accelerate.utils import gather_object

    everyone = gather_object(bad) if accelerator.num_processes > 1 else bad
    place = {int(row): position for position, row in enumerate(rows)} if everyone else {}
    return sorted((replace(item, row=place[item.row]) for item in everyone), key=lambda item: item.row)


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


@torch.inference_mode()
def check_head_on_features(model: nn.Module, inputs: Inputs, features: Tensor, rows: Rows) -> None:
    """Make sure that head(features) is the model's output, on a few rows.

    Raises:
        RecipeError: This backbone's head does more than one linear layer on its pooled features.
    """
    model.eval()
    few = rows[:4]
    whole = model(inputs.evaluation(few)).float().cpu()
    head = classifier_of(model)
    ours = head(features[: len(few)].to(head.weight.device)).float().cpu()
    if not torch.allclose(whole, ours, rtol=1e-2, atol=1e-2):
        raise RecipeError(
            "model.trainable: head does not work with this backbone, whose head does more than one linear layer;"
            " set model.trainable: last_stage"
        )
