"""What a finished run is, as plain values: all that its outputs are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from homing.measures import JUDGES_SETS
from homing.models.backbone import Preprocessing
from homing.pools.images import BadImage
from homing.pools.looks import Looks
from homing.pools.problem import Problem
from homing.recipe.idle import settings_without_effect

if TYPE_CHECKING:
    from homing.outputs.feature_map import Features
    from homing.recipe.schema import Recipe


@dataclass(frozen=True)
class Asked:
    """What a recipe asked for, as far as results, report and model card say it.

    Attributes:
        name: Of the run.
        recipe_sha256: Of the resolved recipe.
        method: Name of the run's own method.
        seed: Of the run.
        backbone: timm's name.
        weights: What the backbone began with, as the recipe has it.
        trainable: all, last_stage or head.
        image_size: Pixels; None for timm's own.
        precision: fp32 or bf16.
        batch_norm: frozen, train or adapt.
        license: Named by the person who trains; None for none.
        folds: Of the cross-validation.
        metric: What methods are judged by.
        groups: Columns of the source by which rates are also reported, sorted.
        is_labelled: Whether the target is.
        shares_labels: Whether source and target are labelled with the same classes.
        reports: Whether a report is written.
        show_target: Whether the report may show images of target and test.
        chooses: Whether folds of the target choose the model that is shipped.
        models_gb: What the models of all methods may take, GB.
        without_effect: What of the recipe's settings does nothing in this run.
        is_multi_label: Whether an image may be of several classes.
    """

    name: str
    recipe_sha256: str
    method: str
    seed: int
    backbone: str
    weights: str
    trainable: str
    image_size: int | None
    precision: str
    batch_norm: str
    license: str | None
    folds: int
    metric: str
    groups: tuple[str, ...]
    is_labelled: bool
    shares_labels: bool
    reports: bool
    show_target: bool
    chooses: bool
    models_gb: float
    without_effect: tuple[str, ...]
    is_multi_label: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Asked:
        """The plain values of a recipe with one target."""
        model, data = recipe.model, recipe.data
        return cls(
            name=recipe.name,
            recipe_sha256=recipe.sha256(),
            method=recipe.rates.method,
            seed=recipe.seed,
            backbone=model.backbone,
            weights=model.weights,
            trainable=model.trainable,
            image_size=model.image_size,
            precision=recipe.training.precision,
            batch_norm=recipe.training.batch_norm,
            license=recipe.output.license,
            folds=recipe.evaluation.folds,
            metric=JUDGES_SETS if recipe.is_multi_label else recipe.evaluation.metric,
            groups=tuple(sorted({spec.group_column for spec in data.sources if spec.group_column})),
            is_labelled=data.target_pool.labels != "none",
            shares_labels=data.shares_labels,
            reports=recipe.output.report,
            show_target=recipe.output.show_target,
            chooses=recipe.chooses,
            models_gb=recipe.output.models_gb,
            without_effect=tuple(settings_without_effect(recipe)),
            is_multi_label=recipe.is_multi_label,
        )


@dataclass(frozen=True)
class RunFacts:
    """A run whose methods are fitted, as far as its outputs need it. Rows are those of `problem`.

    Attributes:
        folder: Of the run.
        asked: What the recipe asked for.
        problem: Pools and classes, without the images that could not be read.
        labels: Class of each row, int64 [rows].
        model: The pristine model, of which the scorer keeps the backbone.
        model_args: What timm.create_model needs to build it again.
        preprocessing: From canvas to input.
        features: What the backbone makes of source and target, source rows first, [N + n, D]; None where nothing
            needed them.
        scanned_images: Source images that went through the backbone.
        bad: Images that could not be read and were left out.
        dropped: Those of them that were of the source: (id, pool, label).
        repeated: Role → unlabelled images that were left out because the same pictures are there.
        looks: Of each row's picture, uint64, 0 where they are not known; or empty.
        max_pixels: A larger picture is bad.
    """

    folder: Path
    asked: Asked
    problem: Problem
    labels: Tensor
    model: nn.Module
    model_args: dict[str, Any]
    preprocessing: Preprocessing
    features: Features | None = None
    scanned_images: int = 0
    bad: tuple[BadImage, ...] = ()
    dropped: tuple[tuple[str, str, str], ...] = ()
    repeated: Mapping[str, int] = field(default_factory=dict)
    looks: Looks = field(default_factory=lambda: np.zeros(0, np.uint64))
    max_pixels: int = 64_000_000
