"""Where a fine-tuning begins: its head as the probe of its plan."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from homing.models.parts import classifier_of
from homing.pools.order import Rows
from homing.rates.learned.work import reporting
from homing.session import Session
from homing.training.head import HEAD_RIDGE, probe_head
from homing.training.material import Material
from homing.training.plan import TrainingPlan

_LONG_FIT, _LONG_SEARCH = 1_000_000, 100_000  # rows times outputs, beyond which it takes seconds


def start_head(
    session: Session,
    material: Material,
    model: nn.Module,
    plan: TrainingPlan,
    rows: Rows,
    labels: Tensor,
    *,
    title: str,
    trainable: str,
) -> None:
    """Set the head of a model to the probe of a plan; what takes long is a stage of the progress, and can be stopped.

    Args:
        session: Of the run.
        material: Of the run.
        model: Its head is overwritten.
        plan: How much each row counts.
        rows: Rows of the run that are trained on, int64 [N + U + n].
        labels: int64 [N + U + n].
        title: Of the fine-tuning.
        trainable: What is trained from there on.
    """
    num_source, split = len(material.problem.source), material.split
    # two sets of classes start where each of them counts: of phases in turn the last has no source
    phase = plan.phases[-1]
    phase = phase if split is None else replace(phase, rates=plan.phases[0].rates)
    phase = replace(phase, rates=phase.rates * (torch.arange(len(phase.rates)) < num_source))  # of labels alone
    assert material.features is not None
    ridge, long = (None, _LONG_SEARCH) if trainable == "head" else (HEAD_RIDGE, _LONG_FIT)
    is_long = len(rows) * classifier_of(model).out_features > long
    with _stage(session, f"{title}: start of the head", is_long) as told:
        probe_head(
            model,
            material.features,
            rows,
            labels,
            phase,
            ridge,
            split=split,
            sets=material.label_sets,
            work=reporting(told),
        )


def _stage(session: Session, title: str, is_long: bool) -> AbstractContextManager[Callable[[float], None] | None]:
    return session.shares(title) if is_long else nullcontext()
