"""Which of the target's own images a report shows, where the recipe asks for it: by id, in `results.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from homing.pools.problem import Problem

SHOWN = 24


def own_images(problem: Problem, labels: Tensor, logits: Tensor | None) -> dict[str, Any]:
    """Some images of the target, every class in turn, and the judged images with the largest loss.

    Args:
        problem: The run's pools.
        labels: Class of each row, int64 [rows]; -1 where it is not known.
        logits: float [M, C] of the rows that the run is judged by; None where nothing was measured.

    Returns:
        target: id and label of each; hardest: id, label, predicted and loss (nats), the largest first; of: the role
        that these are of.
    """
    of_target = labels[problem.target_rows]
    place = np.zeros(len(of_target), np.int64)
    for index in of_target.unique().tolist():  # type: ignore[no-untyped-call]
        own = (of_target == index).numpy()
        place[own] = np.arange(own.sum())
    first = np.lexsort((of_target.numpy(), place))[:SHOWN]
    names = [*problem.classes, ""]  # of label -1: unknown
    target = [{"id": problem.target.ids[row], "label": names[int(of_target[row])]} for row in first.tolist()]
    if logits is None:
        return {"target": target, "of": "target", "hardest": []}
    role, pool = ("target", problem.target) if problem.test is None else ("test", problem.test)
    judged = labels[problem.target_rows if problem.test is None else problem.test_rows]
    losses = functional.cross_entropy(logits.double(), judged, reduction="none")
    order = torch.sort(losses, descending=True, stable=True).indices[:SHOWN].tolist()
    answers = logits.argmax(1)
    hardest = [
        {
            "id": pool.ids[row],
            "label": names[int(judged[row])],
            "predicted": names[int(answers[row])],
            "loss": float(losses[row]),
        }
        for row in order
    ]
    return {"target": target, "of": role, "hardest": hardest}
