"""The error that ends a training before an update: what each process knows of it, in every process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from homing.errors import DivergedError
from homing.training.records import Tally

_SHOWN = 20  # samples that a message names


def divergence(
    accelerator: Accelerator,
    step: int,
    what: str,
    samples: Sequence[str],
    tally: Tally,
    *,
    norm: float | None = None,
    trouble: str | None = None,
) -> DivergedError:
    """The error to raise; all processes call this together.

    Args:
        accelerator: The processes.
        step: From 1, the one that is not taken.
        what: Is wrong.
        samples: Ids of what this process put through the model.
        tally: Of this process.
        norm: Of the gradient, where there is one.
        trouble: With alignments, where there is any.
    """
    mine = {"samples": list(samples), "losses": tally.last_losses(), "alignments": trouble, "norm": norm}
    known: list[dict[str, Any]] = [mine]
    if accelerator.num_processes > 1:
        known = gather_object(known)
    samples = [name for one in known for name in one["samples"]]
    losses = [loss for one in known for loss in one["losses"]]
    norms = [one["norm"] for one in known if one["norm"] is not None]
    pairs = list(zip(samples, losses, strict=False)) if len(samples) == len(losses) else []
    suspects = [name for name, loss in pairs if not math.isfinite(loss)] or samples
    more = f" and {len(suspects) - _SHOWN:,} more" if len(suspects) > _SHOWN else ""
    error = DivergedError(
        f"step {step}: {what}; stopped before the update."
        + (f" Gradient norm {', '.join(f'{value:g}' for value in norms)}." if norms else "")
        + (f" Samples: {', '.join(suspects[:_SHOWN])}{more}." if suspects else "")
        + " Lower training.learning_rate, set training.clip_norm: 1, or look at these samples"
    )
    error.shared = True
    error.details = {"step": step, "what": what, "gradient_norms": norms, "samples": samples}
    error.details |= {"losses": losses, "suspects": suspects, "losses_before": tally.recent_losses()}
    error.details["alignments"] = [one["alignments"] for one in known if one["alignments"]]
    return error
