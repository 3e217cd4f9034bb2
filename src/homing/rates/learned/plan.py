"""What to train on: the outcome of learning rates, and of every plan-based baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from homing.rates.learned.guesses import Guesses
    from homing.rates.learned.scorer import Scorer


@dataclass(frozen=True)
class Doubt:
    """How rows are trained on by a loss that allows for wrong labels: more often than their rates say.

    Attributes:
        draws: `[N]` float32, at least 0, mean 1 within each class of the source, less in classes that the target lacks:
            how often each row is taken.
        right: `[N]` float32 in 0..1, probability that its label is right; 1 in classes of so few rows that nobody can
            tell, and nearer to 1 in those that are small.
    """

    draws: Tensor
    right: Tensor


@dataclass(frozen=True)
class RatePlan:
    """Train on `sum_i rates[i] * loss_i` over the source plus `target_weight * sum_j loss_j` over the target.

    Attributes:
        rates: `[N]` float32, at least 0, mean 1 within each class of the source, less in classes that the target lacks
            (0 everywhere: train on no source).
        target_weight: How often each target image counts; 0: the target is not trained on.
        phi: The few learned numbers behind the rates, for `results.json`.
        descriptors: Name to `[N]` float32, what the rates were computed from, for `rates.parquet`.
        match: `[N]` probability that a row is of the target's domain, where rates were learned.
        right: `[N]` probability that its label is right, where rates were learned.
        doubt: How a training of all layers takes the rows; None: by their rates alone.
        judged: One row per setting that was judged on held-out target images, the chosen one marked.
        warnings: What the reader of the report should know.
        scorer: Gives rates to rows that were not there, by the same descriptors and numbers.
        suggested: `[N]` int64, the class that fits each row best; its own label unless that is probably wrong.
        doubted: Target images that the held-out folds find to be of another class: row of the target, that class.
        guesses: What is thought of unlabelled images, which are trained on by it; None where there are none.
        wanted: Unlabelled images whose labels would tell most, the best first, each with its score in 0..1.
        source_share: Share of the steps that train on the whole source alone, before the rates hold.
    """

    rates: Tensor
    target_weight: float
    phi: dict[str, float] = field(default_factory=dict)
    descriptors: dict[str, Tensor] = field(default_factory=dict)
    judged: list[dict[str, float | bool]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suggested: Tensor | None = None
    doubted: list[tuple[int, int]] = field(default_factory=list)
    guesses: Guesses | None = None
    wanted: list[tuple[int, float]] = field(default_factory=list)
    source_share: float = 0.0
    scorer: Scorer | None = None
    match: Tensor | None = None
    right: Tensor | None = None
    doubt: Doubt | None = None

    @property
    def effective_sample_size(self) -> float:
        """That of `rates`, in rows."""
        return effective_sample_size(self.rates)


def effective_sample_size(rates: Tensor) -> float:
    """`(sum r)^2 / sum r^2` of rates `[N]`: N for uniform ones, 0 where no source is trained on (Kish 1965)."""
    squares = float(rates.double().square().sum())
    return float(rates.double().sum()) ** 2 / squares if squares else 0.0
