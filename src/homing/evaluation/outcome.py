"""What one method of a run came to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from homing.evaluation.planning import Planned
from homing.training.fit import Fitted


@dataclass(frozen=True)
class Outcome:
    """One method: its plan, its fit on the whole target, and its logits on the rows that it is judged by.

    Attributes:
        method: Name and plan.
        fitted: Model, rates, visits.
        logits: float32 [M, C], of the test's rows, or of the target's (cross-validated) where there is no test; None
            where neither has labels.
        seconds: Wall time of planning, fitting and judging, over all attempts.
        folds: float32 [n, C], cross-validated logits of the target's rows; None where nothing asked for them.
    """

    method: Planned
    fitted: Fitted
    logits: Tensor | None
    seconds: float = 0.0
    folds: Tensor | None = None
