"""Which method's model a run ships: its own, or the one that held-out folds of the target prefer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from homing.evaluation.multi_label import predictions_of
from homing.evaluation.paired import paired_intervals
from homing.evaluation.resampling import all_once

_NO_CHOICE = ("oracle",)  # knows what nobody knows in practice


def choose(own: str, logits: Mapping[str, Tensor], labels: Tensor, *, folds: int, seed: int) -> dict[str, Any]:
    """The method that is right most often on held-out folds; of equals the one with the lower loss.

    Where images may be of several classes, the one with the highest mean average precision.

    Args:
        own: The run's own method, one of `logits`.
        logits: Method → cross-validated logits of the target's images, [n, C].
        labels: int64 [n], or bool [n, C].
        folds: Of the cross-validation, for the record.
        seed: Of the bootstrap.

    Returns:
        shipped; metric, and by its name the value of each method; against (the run's own, or where that is shipped the
        runner-up; None where there is no other); and gain, the paired difference to that one with its 95 % interval.
    """
    metric, once = "accuracy" if labels.ndim == 1 else "mean_average_precision", all_once(len(labels))
    figures = {name: predictions_of(each[None], labels).figures(once) for name, each in logits.items()}
    values, losses = ({name: float(each[key]) for name, each in figures.items()} for key in (metric, "nll"))
    ranked = sorted(
        (name for name in logits if name not in _NO_CHOICE or name == own),
        key=lambda name: (-values[name], losses[name], name != own),
    )
    shipped = ranked[0]
    against = own if shipped != own else next(iter(ranked[1:]), None)
    gain = None
    if against is not None:
        gain = paired_intervals(logits[shipped][None], logits[against][None], labels, seed=seed)[metric]
    return {
        "shipped": shipped,
        "chosen_on": {
            "folds": folds,
            "num_target": len(labels),
            "metric": metric,
            metric: values,
            "against": against,
            "gain": gain,
        },
    }
