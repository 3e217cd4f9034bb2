"""The scan: features of every row, once, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.errors import RecipeError
from homing.models.inputs import Inputs, batches_of
from homing.models.parts import autocast, classifier_of
from homing.pools.order import Rows


@torch.inference_mode()
def scan(
    model: nn.Module,
    inputs: Inputs,
    rows: Rows,
    accelerator: Accelerator,
    *,
    precision: str = "fp32",
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """What the head sees of each row: pooled features of the frozen model, without augmentation.

    Each process computes its share; all of them get the whole.

    Args:
        model: A timm model, in evaluation mode while this runs.
        inputs: Pictures by row.
        rows: Rows to scan, int64 [N].
        accelerator: Device and processes.
        precision: fp32 or bf16.
        batch_size: Of one process.
        advance: Called with the number of rows done, over all processes.

    Returns:
        float32 [N, D] on the CPU.
    """
    timm_model, training = cast(Any, model), model.training
    model.eval()
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    parts = []
    for batch in batches_of(mine, batch_size):
        with autocast(accelerator.device, precision):
            features = timm_model.forward_head(timm_model.forward_features(inputs.evaluation(batch)), pre_logits=True)
        parts.append(features.float().cpu())
        advance(len(batch) * accelerator.num_processes)
    model.train(training)
    return gather_shares(parts, len(rows), accelerator)


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
