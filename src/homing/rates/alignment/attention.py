"""`nn.MultiheadAttention`: one call that holds four parameters and puts the sequence before the batch."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def batch_first_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward` with its output transposed to [batch, sequence, width]."""
    output, weights = F.multi_head_attention_forward(*args, **kwargs)
    return output.transpose(0, 1), weights
