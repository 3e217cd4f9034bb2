"""The running average of the weights (EMA): smoother than the last step's, and what is kept where it is asked for."""

from __future__ import annotations

from timm.utils.model_ema import ModelEmaV3
from torch import nn


def running_average(model: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """The average of a model's parameters and buffers (timm's); None where none is wanted.

    The decay rises with the steps (1 - step^(-2/3), at most `decay`), so that a short run is not left at its start.
    It is a pure function of the step: a checkpoint needs the averaged weights alone.
    """
    return None if decay is None else ModelEmaV3(model, decay=decay, use_warmup=True)
