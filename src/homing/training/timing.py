"""How many steps fit into a time: a few are taken on a copy of the model that is thrown away, and timed."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import torch

from homing.models.inputs import RowsOf
from homing.models.parts import set_trainable
from homing.session import Session
from homing.training.loop import FineTuning
from homing.training.material import Material
from homing.training.plan import Phase, TrainingPlan
from homing.training.step import Settings

_STEPS, _WARMING_UP = 7, 3


def seconds_a_step(
    session: Session, material: Material, settings: Settings, *, trainable: str, target_weight: float
) -> float:
    """Seconds of a step that looks at no alignments, pictures and all; every process must call it.

    Args:
        session: Of the run.
        material: Of the run; its model stays as it is.
        settings: How to step.
        trainable: all, last_stage or head.
        target_weight: How often an epoch takes each target image.
    """
    target = material.problem.target_rows
    rows, model = material.rows_of(target, guessed=False), copy.deepcopy(material.model)
    set_trainable(model, trainable)
    moments: list[float] = []
    tuning = FineTuning(
        material.trained_part(model),
        RowsOf(material.inputs, rows),
        material.labels[rows],
        TrainingPlan((Phase(torch.ones(len(material.problem.source)), target_weight),)),
        replace(settings, num_steps=_STEPS),
        session.accelerator,
        split=material.split,
        sets=material.label_sets,
        stop_asked=session.stop_asked,
    )
    tuning.run(lambda steps: moments.append(time.monotonic()))
    return (moments[-1] - moments[_WARMING_UP]) / (_STEPS - _WARMING_UP)
