"""Which method's model a run ships: its own, or the one that held-out folds of the target prefer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from homing.evaluation.paired import paired_intervals

_NO_CHOICE = ("oracle",)  # knows what nobody knows in practice


def choose(own: str, logits: Mapping[str, Tensor], labels: Tensor, *, folds: int, seed: int) -> dict[str, Any]:
    """The method that is right most often on held-out folds; of equals the one with the lower loss.

    Args:
        own: The run's own method, one of `logits`.
        logits: Method → cross-validated logits of the target's images, [n, C].
        labels: int64 [n].
        folds: Of the cross-validation, for the record.
        seed: Of the bootstrap.

    Returns:
        shipped; accuracy of each method; against (the run's own, or where that is shipped the runner-up; None where
        there is no other); and gain, the paired difference of accuracy to that one with its 95 % interval.
    """
    accuracy = {name: float((each.argmax(1) == labels).double().mean()) for name, each in logits.items()}
    losses = {name: float(functional.cross_entropy(each.double(), labels)) for name, each in logits.items()}
    ranked = sorted(
        (name for name in logits if name not in _NO_CHOICE or name == own),
        key=lambda name: (-accuracy[name], losses[name], name != own),
    )
    shipped = ranked[0]
    against = own if shipped != own else next(iter(ranked[1:]), None)
    gain = None
    if against is not None:
        gain = paired_intervals(logits[shipped][None], logits[against][None], labels, seed=seed)["accuracy"]
    return {
        "shipped": shipped,
        "chosen_on": {
            "folds": folds,
            "num_target": len(labels),
            "accuracy": accuracy,
            "against": against,
            "gain": gain,
        },
    }
