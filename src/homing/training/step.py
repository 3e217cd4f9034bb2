"""One step's own arithmetic: losses of a batch, the gradient's norm, and how all of it is set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homing.models.parts import lone_sample_held
from homing.training.head import of_own_side
from homing.training.losses import sample_losses


@dataclass(frozen=True)
class Settings:
    """How a fine-tuning steps, the same for all methods of a comparison. Names as in the recipe's `training`."""

    num_steps: int
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    layer_decay: float | None = None
    clip_norm: float | None = None
    schedule: str = "cosine"
    warmup: float = 0.1
    precision: str = "fp32"
    batch_norm: str = "frozen"
    mixup: float = 0.0
    ema: float | None = None
    average_last: float = 0.0
    seed: int = 0


def losses_of(
    model: nn.Module,
    tensors: Tensor,
    labels: Tensor,
    *,
    mixup: float = 0.0,
    split: int | None = None,
    sets: Tensor | None = None,
    right: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits [B, C] and the loss of each sample [B], in float32.

    Args:
        model: In the mode of the training.
        tensors: Its inputs, [B, ...].
        labels: int64 [B], on the same device.
        mixup: alpha; 0 for none. A batch is mixed with itself in reverse order, by one share.
        split: As in `of_own_side`.
        sets: As in `sample_losses`.
        right: As in `sample_losses`.
    """
    if not mixup:
        with lone_sample_held(model, len(tensors)):
            logits = of_own_side(model(tensors).float(), labels, split)
        return logits, sample_losses(logits, labels, sets, right)
    share = torch.distributions.Beta(mixup, mixup).sample().item()
    with lone_sample_held(model, len(tensors)):
        logits = model(share * tensors + (1 - share) * tensors.flip(0)).float()
    of_both = (labels, right), (labels.flip(0), None if right is None else right.flip(0))
    both = [(of_own_side(logits, target, split), target, sure) for target, sure in of_both]
    losses = [sample_losses(own, target, sets, sure) for own, target, sure in both]
    return both[0][0], share * losses[0] + (1 - share) * losses[1]


def gradient_norm(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor:
    """Norm of the whole gradient, scalar on the device; the gradient is clipped to it where there is a bound."""
    bound = clip_norm if clip_norm is not None else math.inf
    if bound < math.inf:
        return nn.utils.clip_grad_norm_(parameters, bound)
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor on the device; the copy does not hold up what the device is at."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
