"""A small problem in memory: pictures as tensors, and a fine-tuning over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import timm
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.models.inputs import Visit
from homing.training.loop import FineTuning
from homing.training.plan import Phase, TrainingPlan
from homing.training.step import Settings

NUM_SOURCE, NUM_TARGET, NUM_CLASSES = 23, 5, 3


class TensorInputs:
    """Pictures held in memory, [N, 3, S, S]."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        return (self.pictures[torch.from_numpy(visit.rows)] for visit in visits)

    def evaluating(self, batches) -> Iterator[Tensor]:
        return (self.pictures[torch.from_numpy(rows)] for rows in batches)


def pictures_and_labels(size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, NUM_CLASSES, (NUM_SOURCE + NUM_TARGET,), generator=generator)
    noise = torch.randn(NUM_SOURCE + NUM_TARGET, 3, size, size, generator=generator)
    return noise + labels[:, None, None, None], labels


def small_model(name: str = "test_resnet", **arguments) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=NUM_CLASSES, **arguments)


def uniform_plan(target_weight: float = 2.0, **settings) -> TrainingPlan:
    return TrainingPlan((Phase(torch.ones(NUM_SOURCE), target_weight),), **settings)


def fine_tuning(model: nn.Module, plan: TrainingPlan, settings: Settings, **more) -> FineTuning:
    pictures, labels = pictures_and_labels()
    return FineTuning(model, TensorInputs(pictures), labels, plan, settings, Accelerator(cpu=True), **more)
