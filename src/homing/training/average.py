"""The average of the weights over the steps: smoother than the last step's, and what is kept where it is asked for."""

from __future__ import annotations

from timm.utils.model_ema import ModelEmaV3
from torch import nn

from homing.training.step import Settings


def running_average(model: nn.Module, settings: Settings, begins: int) -> ModelEmaV3 | None:
    """The average of a model's parameters and buffers (timm's); None where none is wanted.

    Either over the last steps, all alike (Izmailov et al. 2018), or exponential; the decay of that one rises with the
    steps (1 - step^(-2/3), at most `ema`), so that a short run is not left at its start. Both are pure functions of
    the step: a checkpoint needs the averaged weights alone.

    Args:
        model: As it is trained.
        settings: `average_last` is the share of the last phase's steps that count, `ema` the decay.
        begins: Step at which the last phase begins: weights of what was trained on before do not count.
    """
    if settings.ema is not None:
        return ModelEmaV3(model, decay=settings.ema, use_warmup=True)
    if not settings.average_last:
        return None
    skipped = begins + round((1 - settings.average_last) * (settings.num_steps - begins))
    return ModelEmaV3(model, decay=1.0, use_warmup=True, warmup_power=1.0, update_after_step=skipped)
