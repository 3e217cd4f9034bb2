"""From a recipe to plain values: recipe objects go no further than the flow."""

from __future__ import annotations

from collections.abc import Sequence

from homing.evaluation.planning import PlanSettings
from homing.forecast import Forecast
from homing.methods import METHODS
from homing.pools.augmentation import CropFlipColor
from homing.pools.problem import Problem
from homing.recipe.schema import Recipe
from homing.training.activations import Keeping
from homing.training.fit import FitSettings
from homing.training.online import OnlineSettings
from homing.training.optimizer import default_learning_rate
from homing.training.plan import num_steps_of
from homing.training.step import Settings

NOMINAL_WEIGHT = 10.0
"""How often a target image counts for the number of steps, where the recipe leaves its weight to be judged."""


BRANCHES = 2
"""Fine-tunings of a last stage that are averaged, where the recipe does not say (docs/decisions/training.md)."""


def plan_settings(recipe: Recipe) -> PlanSettings:
    """How methods plan."""
    truth, rates = recipe.data.truth, recipe.rates
    return PlanSettings(
        target_weight=recipe.training.target_weight,
        descriptors=rates.descriptors,
        folds=rates.folds,
        apply=rates.apply,
        residuals=rates.residuals,
        doubts=recipe.model.trainable == "all",  # a last stage or a head loses nothing without (docs/decisions)
        trains=recipe.trains,
        shares_labels=recipe.data.shares_labels,
        source_has_labels=recipe.data.sources[0].labels != "none",
        truth=None if truth is None else (truth.matches_column, truth.clean_column),
        recipe_digest=recipe.fit_sha256(),
    )


def fit_settings(recipe: Recipe) -> FitSettings:
    """What all fits share."""
    rates, output = recipe.rates, recipe.output
    return FitSettings(
        trainable=recipe.model.trainable,
        head_init=recipe.model.head_init,
        scope=rates.scope,
        guide_batch_size=rates.guide.batch_size,
        guide_refresh_every=rates.guide.refresh_every,
        guide_window=rates.guide.window,
        instance=OnlineSettings(**{name: getattr(rates, name) for name in OnlineSettings.__dataclass_fields__}),
        checkpoint_every=output.checkpoint_every,
        keep=output.keep,
        log_every=output.log_every,
        own_method=rates.method,
    )


def training_settings(recipe: Recipe, num_steps: int) -> Settings:
    """How a fit steps."""
    training = recipe.training
    shared = set(Settings.__dataclass_fields__) & set(type(training).model_fields)
    values = {name: getattr(training, name) for name in shared}
    values["learning_rate"] = training.learning_rate or default_learning_rate(
        recipe.model.trainable, recipe.model.head_init
    )
    values["average_last"] = recipe.averaged_share
    return Settings(num_steps=num_steps, seed=recipe.seed, **values)


def num_steps_for(recipe: Recipe, problem: Problem) -> int:
    """Steps of a method that takes each sample's gradient once, in every fold; of one epoch where minutes are given."""
    training = recipe.training
    num_rows = len(problem.source) + nominal_weight(recipe, problem) * len(problem.target)
    epochs = 1.0 if training.minutes is not None else training.epochs
    return num_steps_of(epochs, training.steps, num_rows, training.batch_size)


def nominal_weight(recipe: Recipe, problem: Problem) -> float:
    """How often a target image counts for the number of steps."""
    weight = NOMINAL_WEIGHT if recipe.training.target_weight is None else recipe.training.target_weight
    return weight if problem.has_target_labels else 0.0


def lengths_of(recipe: Recipe, problem: Problem, methods: Sequence[str]) -> list[int]:
    """Steps of each training of a run: of every method on the whole target, and of its folds where it has some."""
    num_steps = num_steps_for(recipe, problem)
    is_folded = recipe.chooses or (problem.test is None and problem.is_measured)
    branches = branches_of(recipe, keeps_activations=keeping_of(recipe).views > 0)
    times = branches + (recipe.evaluation.folds if is_folded else 0)
    return [steps_of(name, num_steps) for name in methods for _ in range(times)]


def steps_of(name: str, num_steps: int) -> int:
    """Steps of a method, of as many gradients as one that takes each sample's once has in `num_steps`."""
    method = METHODS[name]
    return max(1, num_steps // method.passes) if method.trains else 0


def forecast_of(recipe: Recipe, problem: Problem, methods: Sequence[str]) -> Forecast:
    """What a run has to do."""
    training = recipe.training
    return Forecast(
        lengths_of(recipe, problem, methods) if recipe.trains else [],
        images=training.batch_size,
        trainable=recipe.model.trainable,
        minutes=training.minutes,
    )


def branches_of(recipe: Recipe, *, keeps_activations: bool) -> int:
    """How many fine-tunings are averaged; by itself several only where they cost little and start from one place."""
    wanted, model = recipe.training.branches, recipe.model
    if wanted is not None:
        return wanted
    return BRANCHES if keeps_activations and model.weights != "none" and model.head_init == "probe" else 1


def augmentation_of(recipe: Recipe) -> CropFlipColor | None:
    """How training pictures stray from their canvas."""
    wanted = recipe.training.augmentation
    return None if isinstance(wanted, str) else CropFlipColor(**wanted.model_dump())


def keeping_of(recipe: Recipe) -> Keeping:
    """How activations in front of the last stage are kept."""
    training, output = recipe.training, recipe.output
    return Keeping(
        views=training.views if recipe.trains and recipe.model.trainable == "last_stage" else 0,
        augments=augmentation_of(recipe) is not None,
        features=output.features,
        max_bytes=int(output.cache_gb * 1e9),
        precision=training.precision,
        batch_norm=training.batch_norm,
        mixup=training.mixup,
    )


def needs_features(recipe: Recipe) -> bool:
    """Whether anything of a run looks at features."""
    if not recipe.trains or recipe.model.head_init == "probe" or recipe.model.trainable == "head":
        return True
    weight_is_known = recipe.training.target_weight is not None or not recipe.data.shares_labels
    methods = [METHODS[name] for name in methods_of(recipe)]
    return any(m.basis == "features" or (m.basis == "weight" and not weight_is_known) for m in methods)


def observes(recipe: Recipe) -> bool:
    """Whether anything of a run looks at alignments while it trains."""
    moves = recipe.rates.residuals and recipe.rates.method == "hierarchical"
    return moves or any(METHODS[name].online is not None for name in methods_of(recipe))


def methods_of(recipe: Recipe) -> tuple[str, ...]:
    """Names of the methods of a run, its own first."""
    return recipe.methods
