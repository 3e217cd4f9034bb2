"""`training.minutes`: how many steps the trainings of a run have, so that all of them end within a budget."""

from __future__ import annotations

from homing.methods import METHODS
from homing.outputs.ownership import marked, note
from homing.preparing import Prepared
from homing.recipe.schema import Recipe
from homing.session import Session
from homing.training.distributed import on_main
from homing.training.timing import seconds_a_step
from homing.unpacking import lengths_of, methods_of, nominal_weight, num_steps_for, training_settings

_RESERVE = 0.9  # of the budget goes into steps; the rest is for checkpoints and for judging
_ONLINE = 1.5  # cost of a method that looks at alignments, in steps that do not (docs/step-cost.md)


def with_steps(recipe: Recipe, session: Session, prepared: Prepared) -> Recipe:
    """The recipe with a number of steps in the place of its minutes; as it is where it has none.

    It is chosen once and noted in the run's folder: a resumed run, and methods that are added to a finished one, have
    the same. Every process must call it.
    """
    minutes = recipe.training.minutes
    if minutes is None:
        return recipe
    if not _trained(recipe):
        return _with(recipe, num_steps_for(recipe, prepared.material.problem))
    steps = on_main(session.accelerator, lambda: marked(session.folder).get("steps"))
    if not isinstance(steps, int):
        seconds = _measured(recipe, session, prepared)
        steps = on_main(session.accelerator, lambda: _chosen(recipe, prepared, seconds, session))
    return _with(recipe, steps)


def _with(recipe: Recipe, steps: int) -> Recipe:
    training = recipe.training.model_copy(update={"steps": steps, "minutes": None})
    return recipe.model_copy(update={"training": training})


def _trained(recipe: Recipe) -> list[str]:
    """The methods that take steps."""
    return [name for name in methods_of(recipe) if METHODS[name].trains]


def _measured(recipe: Recipe, session: Session, prepared: Prepared) -> float:
    problem = prepared.material.problem
    return seconds_a_step(
        session,
        prepared.material,
        training_settings(recipe, num_steps=1),
        trainable=recipe.model.trainable,
        target_weight=nominal_weight(recipe, problem),
    )


def _cost_of(name: str) -> float:
    """What a step of a method takes, of a plain step."""
    method = METHODS[name]
    return _ONLINE if method.online is not None else 1.0


def _chosen(recipe: Recipe, prepared: Prepared, seconds: float, session: Session) -> int:
    """The number of steps, noted and told."""
    problem, minutes = prepared.material.problem, recipe.training.minutes
    assert minutes is not None
    methods = _trained(recipe)
    each = len(lengths_of(recipe, problem, methods)) // len(methods)
    cost = sum(each * _cost_of(name) for name in methods)
    steps, epoch = max(1, int(_RESERVE * 60 * minutes / (seconds * cost))), num_steps_for(recipe, problem)
    far = f"{steps / epoch:.2g} epochs"
    if steps < epoch:
        far = f"less than one epoch, which has {epoch:,}: raise training.minutes, or train less of the model"
    session.progress.say(
        f"training.minutes: {minutes:g} takes {steps:,} step{'s' * (steps > 1)} of {seconds:.2g} s for each of"
        f" {each * len(methods):,} trainings ({far})"
    )
    note(session.folder, steps=steps)
    return steps
