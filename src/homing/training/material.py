"""What every fit of a run starts from: pools, the pristine model, its pictures, and the features of every row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from homing.models.activations import Activations
from homing.models.backbone import Preprocessing
from homing.models.inputs import FeatureInputs, ImageInputs, Inputs
from homing.models.parts import classifier_of
from homing.pools.order import Rows
from homing.pools.problem import Problem
from homing.pools.texts import Texts
from homing.rates.learned.one_vs_rest import rarest_labels


class FeatureBlocks(Protocol):
    """Features of many rows that need not be in memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        ...

    def __len__(self) -> int: ...

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Features of a slice or of rows int64 [m]; float32 [m, D] on the CPU."""
        ...


@dataclass(frozen=True)
class RowsBetween:
    """Rows of other features that follow one another: those of the source, or the unlabelled, of a whole problem."""

    features: FeatureBlocks
    start: int
    count: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.count, self.features.shape[1]

    def __len__(self) -> int:
        return self.count

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Features of a slice or of rows int64 [m]; float32 [m, D] on the CPU."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.count)
            return self.features.rows(slice(self.start + start, self.start + stop))
        return self.features.rows(self.start + rows)


@dataclass(frozen=True)
class Material:
    """Rows are those of `problem`.

    Attributes:
        problem: Pools, classes, labels.
        model: The pristine model, on the device; every fit starts from a copy.
        model_args: What timm.create_model needs to build it again.
        preprocessing: From canvas to input.
        pictures: Pictures by row.
        features: What the model's head sees of each row; None where nothing of the run looks at features.
        head_only: Whether nothing but the head is trained.
        kept: Folder of the features' store, in which what follows from them may be kept.
        activations: What the frozen trunk makes of the pictures, where the last stage is trained on that; else None.
    """

    problem: Problem
    model: nn.Module
    model_args: dict[str, Any]
    preprocessing: Preprocessing
    pictures: ImageInputs
    features: FeatureBlocks | None
    head_only: bool
    kept: Path
    activations: Activations | None = None

    @cached_property
    def labels(self) -> Tensor:
        """Position of each row's class; int64 [rows]."""
        return torch.from_numpy(self.problem.labels)

    @cached_property
    def label_sets(self) -> Tensor | None:
        """Where a row has a set of classes: whether each of K sets, which `labels` count, holds each class; [K, C]."""
        sets = self.problem.label_sets
        return None if sets is None else torch.from_numpy(sets.holds)

    def sets_of(self, rows: Rows) -> Tensor | None:
        """Whether each of some rows is of each class, bool [len(rows), C]; None where every row is of one."""
        return None if self.label_sets is None else self.label_sets[self.labels[rows]]

    @cached_property
    def groups(self) -> Tensor:
        """What rows are balanced in: their class, or the rarest class of their set; int64 [rows]."""
        if self.label_sets is None:
            return self.labels
        counts = self.label_sets[self.labels[: len(self.problem.source)]].sum(dim=0)
        return rarest_labels(self.label_sets, counts)[self.labels]

    @property
    def num_groups(self) -> int:
        """Of `groups`; rows of no class have one more of their own."""
        return len(self.problem.classes) + (self.label_sets is not None)

    @cached_property
    def inputs(self) -> Inputs:
        """What the trained part is fed."""
        if not self.head_only:
            return self.pictures if self.activations is None else self.activations
        assert self.features is not None
        return FeatureInputs(self.features, self.pictures.device)

    def trained_part(self, model: nn.Module) -> nn.Module:
        """The part of a copy of the model that `inputs` are for: its parameters are the copy's own."""
        if self.head_only:
            return classifier_of(model)
        return model if self.activations is None else self.activations.cut.tail(model)

    @property
    def split(self) -> int | None:
        """Where outputs of the source's own classes begin; None where source and target share theirs."""
        return len(self.problem.classes) if self.problem.own_classes else None

    def rows_of(self, target: Rows, *, guessed: bool) -> Rows:
        """Rows of the problem that one training sees, int64: source, unlabelled where they are guessed, then target."""
        problem = self.problem
        unlabelled = problem.unlabelled_rows if guessed else np.empty(0, np.int64)
        return np.concatenate([problem.source_rows, unlabelled, target])

    def ids_of(self, target: Rows, *, guessed: bool) -> Texts:
        """Ids of these rows in their pools."""
        source, unlabelled = self.problem.source, self.problem.unlabelled
        between = [unlabelled.ids] if guessed and unlabelled is not None else []
        return Texts.concat([source.ids, *between, self.problem.target.ids.take(target - len(source))])
