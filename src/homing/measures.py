"""The one table of what models are judged by: what each figure is called, how it is written, which way is better.

Nothing heavy is imported here: recipes are checked by it before torch is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1", "nll", "auroc", "top5_accuracy"]

MANY_CLASSES = 10
"""Up to so many classes the right one is nearly always among five."""


@dataclass(frozen=True)
class Measure:
    """A figure that models are compared by.

    Attributes:
        key: As in `results.json` and recipes.
        title: For people, in tables.
        word: The same within a sentence.
        is_percent: Whether it is told in percent, its differences in points.
        falls: Whether less is better.
    """

    key: str
    title: str
    word: str
    is_percent: bool = False
    falls: bool = False

    def write(self, value: float) -> str:
        """A value with its unit."""
        return f"{100 * value:.1f} %" if self.is_percent else f"{value:.3f}"

    def plain(self, value: float) -> str:
        """A value without its unit, as within an interval."""
        return f"{100 * value:.1f}" if self.is_percent else f"{value:.3f}"

    def end(self, value: float) -> str:
        """An end of an axis, in few characters."""
        return f"{100 * value:.0f} %" if self.is_percent else f"{value:g}"

    def difference(self, value: float) -> str:
        """A difference of two values, with its sign and without its unit."""
        text = self.plain(abs(value))
        return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"

    def gain(self, difference: float) -> float:
        """A difference, positive where it is for the better."""
        return -difference if self.falls else difference


JUDGES_SETS = "mean_average_precision"
"""What a run is judged by whose images may be of several classes; only there it exists, and so does micro F1."""

MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        Measure("mean_average_precision", "Mean average precision", "mean average precision", is_percent=True),
        Measure("micro_f1", "Micro F1", "micro F1"),
        Measure("accuracy", "Accuracy", "accuracy", is_percent=True),
        Measure("balanced_accuracy", "Balanced accuracy", "balanced accuracy", is_percent=True),
        Measure("top5_accuracy", "Top-5 accuracy", "top-5 accuracy", is_percent=True),
        Measure("macro_f1", "Macro F1", "macro F1"),
        Measure("auroc", "AUROC", "AUROC"),
        Measure("nll", "NLL", "NLL", falls=True),
    )
}


def why_not(metric: str, num_classes: int) -> str | None:
    """Why a task of so many classes cannot be judged by a metric; None where it can."""
    if metric == "auroc" and num_classes != 2:
        return f"evaluation.metric: auroc is for two classes, and the target has {num_classes}"
    if metric == "top5_accuracy" and num_classes <= MANY_CLASSES:
        return f"evaluation.metric: top5_accuracy is for more than {MANY_CLASSES} classes, and there are {num_classes}"
    return None


def headline_of(results: Mapping[str, Any]) -> Measure:
    """What a run is judged by, out of its `results.json`; accuracy in those that do not say."""
    return MEASURES.get(str(results.get("metric")), MEASURES["accuracy"])
