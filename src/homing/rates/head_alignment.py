"""The alignments of a linear softmax head in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from homing.rates.alignment_error import AlignmentError


@torch.no_grad()
def head_alignments(
    features: Tensor, logits: Tensor, labels: Tensor, weight_direction: Tensor, bias_direction: Tensor | None = None
) -> Tensor:
    """⟨(V, b), ∇ℓᵢ⟩ = (pᵢ − yᵢ)ᵀ(V hᵢ + b), ℓ the cross-entropy of softmax(W h + c); at most N × C at a time.

    Args:
        features: Inputs h of the head [N, D].
        logits: Outputs of the head for them [N, C].
        labels: Class positions int64 [N], or target probabilities [N, C].
        weight_direction: V [C, D].
        bias_direction: b [C], or None for a head without bias.

    Returns:
        The alignments [N], fp32 (fp64 for fp64 logits).

    Raises:
        AlignmentError: The shapes do not fit together.
    """
    num_classes, width = weight_direction.shape
    if features.shape != (len(logits), width) or logits.shape != (len(logits), num_classes):
        raise AlignmentError(
            f"features {tuple(features.shape)} and logits {tuple(logits.shape)} do not fit a head direction of shape "
            f"{tuple(weight_direction.shape)}; expected [N, {width}] and [N, {num_classes}]"
        )
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    residual = logits.to(dtype).softmax(1)
    if labels.is_floating_point():
        residual -= labels.to(dtype)
    else:
        residual[torch.arange(len(labels), device=labels.device), labels] -= 1
    moved = torch.nn.functional.linear(
        features.to(dtype),
        weight_direction.to(dtype),
        None if bias_direction is None else bias_direction.to(dtype),
    )
    return torch.linalg.vecdot(residual, moved)  # type: ignore[no-any-return]
