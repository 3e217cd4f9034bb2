"""Settings that were given but change nothing in a run."""

from __future__ import annotations

from homing.methods import METHODS, online_methods
from homing.recipe.data import PoolSpec, SplitOff
from homing.recipe.schema import Rates, Recipe
from homing.recipe.section import Section

_COLUMNS = {"sample_id", "source", "label", "rate", "visits", "suggested_label"}
_COLUMNS |= {"target_likeness", "label_consistency", "target_alignment"}


def settings_without_effect(recipe: Recipe) -> list[str]:
    """Settings that were given but change nothing in this run, one sentence each."""
    data, model, rates, training = recipe.data, recipe.model, recipe.rates, recipe.training
    found = []
    idle = _changed(rates).intersection(*(_idle_rates(rates, name) for name in recipe.methods))
    if idle:
        found.append(f"rates.{', rates.'.join(sorted(idle))}: no effect with rates.method: {rates.method}")
    if model.trainable == "head" and "augmentation" in _changed(training) and training.augmentation != "none":
        found.append("training.augmentation: no effect with model.trainable: head, features are computed once")
    if model.trainable != "last_stage" and "views" in _changed(training):
        found.append(f"training.views: no effect with model.trainable: {model.trainable}")
    if recipe.trains and model.keep == "best" and not recipe.chooses:
        why = "the target has no labels" if len(recipe.methods) > 1 else "there are no evaluation.baselines"
        found.append(f"model.keep: no effect, {why} to choose by")
    if data.test is not None and "folds" in _changed(recipe.evaluation) and not recipe.chooses:
        found.append("evaluation.folds: no effect, data.test is given")
    for name in sorted(_COLUMNS.intersection(spec.group_column or "" for spec in data.sources)):
        found.append(
            f"data.source.group_column: no effect, {name} is a column of rates.parquet; rename it in the table"
        )
    if data.unlabelled is not None and not recipe.learns_from_unlabelled:
        found.append(f"data.unlabelled: {_why_unlabelled_is_idle(recipe)}")
    unlabelled = isinstance(data.target, PoolSpec) and data.target.labels == "none"
    if recipe.trains and unlabelled and training.target_weight is not None:
        found.append("training.target_weight: no effect, the target has no labels and is not trained on")
    return found if recipe.trains else [*found, *_without_training(recipe)]


def _idle_rates(rates: Rates, name: str) -> set[str]:
    """Names of the settings that a method does not look at."""
    judged, guided = {"descriptors", "folds", "residuals"}, {"scope", "guide"}
    kept = {"observe_every", "step_size", "momentum", "decay", "max_rate"}
    if not METHODS[name].trains:
        return {"residuals", "apply"} | kept | guided
    if METHODS[name].plans_by == "learned":
        return set() if rates.residuals else kept | guided
    if name not in online_methods():
        return judged | kept | guided
    return judged if name == "instance" else judged | kept | {"apply"}


def _why_unlabelled_is_idle(recipe: Recipe) -> str:
    if recipe.training.target_weight == 0:
        return "no effect with training.target_weight: 0, an unlabelled image counts as much as a target image at most"
    return f"no effect with rates.method: {recipe.rates.method}; hierarchical alone learns from unlabelled images"


def _without_training(recipe: Recipe) -> list[str]:
    idle = sorted(_changed(recipe.training) - {"epochs", "precision", "workers", "target_weight", "batch_norm"})
    names = [f"training.{name}" for name in idle]
    names += ["model.keep"] if recipe.model.keep != "own" else []
    names += ["rates.residuals"] if recipe.rates.residuals else []
    names += ["evaluation.metric"] if "metric" in _changed(recipe.evaluation) else []
    takes_of_target = isinstance(recipe.data.test, SplitOff)
    names += ["data.test"] if recipe.data.test is not None and not takes_of_target else []
    return [f"{', '.join(names)}: no effect with training.epochs: 0, nothing is trained"] if names else []


def _changed(section: Section) -> set[str]:
    """Names of the fields that differ from their defaults."""
    fields = type(section).model_fields
    return {name for name, field in fields.items() if getattr(section, name) != field.get_default()}
