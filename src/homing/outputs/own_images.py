"""Which of the target's own images a report shows, where the recipe asks for it: by id, in `results.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from homing.pools.label_sets import SEPARATOR
from homing.rates.learned.one_vs_rest import set_losses

if TYPE_CHECKING:
    from homing.pools.problem import Problem

SHOWN = 24


def own_images(problem: Problem, labels: Tensor, logits: Tensor | None) -> dict[str, Any]:
    """Some images of the target, every class in turn, and the judged images with the largest loss.

    Args:
        problem: The run's pools.
        labels: Class of each row, int64 [rows]; -1 where it is not known. Its set, where it may be of several classes.
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
    target = [{"id": problem.target.ids[row], "label": _label(problem, int(of_target[row]))} for row in first.tolist()]
    if logits is None:
        return {"target": target, "of": "target", "hardest": []}
    role, pool = ("target", problem.target) if problem.test is None else ("test", problem.test)
    judged = labels[problem.target_rows if problem.test is None else problem.test_rows]
    losses = _losses(problem, logits.double(), judged)
    order = torch.sort(losses, descending=True, stable=True).indices[:SHOWN].tolist()
    hardest = [
        {
            "id": pool.ids[row],
            "label": _label(problem, int(judged[row])),
            "predicted": _answer(problem, logits[row]),
            "loss": float(losses[row]),
        }
        for row in order
    ]
    return {"target": target, "of": role, "hardest": hardest}


def _losses(problem: Problem, logits: Tensor, labels: Tensor) -> Tensor:
    """Nats of each image, `[M]`."""
    if problem.label_sets is None:
        return functional.cross_entropy(logits, labels, reduction="none")
    return set_losses(logits, torch.from_numpy(problem.label_sets.holds)[labels])


def _label(problem: Problem, label: int) -> str:
    """The class of a row, or those of its set; empty where it is not known."""
    if label < 0:
        return ""
    if problem.label_sets is None:
        return problem.classes[label]
    return _joined(problem, problem.label_sets.holds[label])


def _answer(problem: Problem, logits: Tensor) -> str:
    """What is said of an image, `[C]`."""
    if problem.label_sets is None:
        return problem.classes[int(logits.argmax())]
    return _joined(problem, (logits > 0).numpy())


def _joined(problem: Problem, holds: npt.NDArray[np.bool_]) -> str:
    return SEPARATOR.join(name for name, is_there in zip(problem.classes, holds.tolist(), strict=True) if is_there)
