"""Whether a recipe can be carried out with its pools: asked before anything is scanned, trained or replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from homing.errors import DataError
from homing.methods import METHODS
from homing.pools.images import BadImage, Images
from homing.pools.label_sets import class_counts
from homing.pools.looks import CANVAS
from homing.pools.pool import Pool
from homing.pools.problem import Problem, side_by_side
from homing.recipe.schema import Recipe
from homing.terminal import counted, in_a_line
from homing.training.epoch import check_length

_LISTED = 20


def check_workable(recipe: Recipe, problem: Problem) -> None:
    """Whether nothing stands in the way of the run.

    Raises:
        DataError: Its pools are too small for it, or say nothing that it needs.
        RecipeError: An epoch would be too long to be drawn.
    """
    if found := list(hindrances(recipe, problem)):
        raise DataError("\n".join(found))
    check_epoch(recipe, problem)


def check_epoch(recipe: Recipe, problem: Problem) -> None:
    """Whether an epoch by the recipe's own target weight can be drawn.

    Raises:
        RecipeError: It would be too long.
    """
    if recipe.trains and recipe.training.target_weight is not None:
        check_length(len(problem.source), len(problem.target), recipe.training.target_weight)


def hindrances(recipe: Recipe, problem: Problem) -> Iterator[str]:
    """What of the pools stands in the way of the run, a sentence each."""
    if recipe.data.truth is not None:
        for column in (recipe.data.truth.matches_column, recipe.data.truth.clean_column):
            try:
                problem.source.flags(column)
            except DataError as error:
                yield str(error)
    if not problem.has_target_labels:
        return
    num_target = len(problem.target)
    learns = recipe.data.shares_labels and any(METHODS[name].plans_by == "learned" for name in recipe.methods)
    validates = recipe.trains and (recipe.chooses or problem.test is None)
    folds = {"rates.folds": recipe.rates.folds} if learns else {}
    folds |= {"evaluation.folds": recipe.evaluation.folds} if validates else {}
    if too_many := {key: count for key, count in folds.items() if count > num_target}:
        keys = " and ".join(f"the {count} folds of {key}" for key, count in too_many.items())
        lower = f" or lower {' and '.join(too_many)} to at most {num_target}" if num_target > 1 else ""
        yield f"target: {counted(num_target, 'labelled image')} are fewer than {keys}; label more images{lower}"
    elif learns and validates and num_target - -(-num_target // recipe.evaluation.folds) < 2:
        yield (
            f"target: of {counted(num_target, 'labelled image')} a fold of the evaluation would leave a single one to"
            " learn rates from; label more images, or give data.test"
        )
    if recipe.chooses and problem.label_sets is not None and not class_counts(problem.target):
        yield "target: no image is of any class, and model.keep: best has nothing to choose by; label more images"


def check_readable(recipe: Recipe, problem: Problem) -> None:
    """Whether all pictures but those of the source can be read, where one that cannot be ends a run.

    Raises:
        DataError: Some cannot; lists up to 20.
    """
    if recipe.data.on_bad_image == "drop":
        return
    few = {role: pool for role, pool in problem.by_role.items() if role != "source"}
    with closing(small_images(recipe, few)) as images:
        bad, _ = images.find_odd()
    if bad:
        raise DataError(bad_images(bad, len(images)))


def small_images(recipe: Recipe, pools: Mapping[str, Pool]) -> Images:
    """The pictures of some roles, to be decoded once: whether they can be, and what they look like."""
    store, rows, names = side_by_side(pools)
    data, workers = recipe.data, recipe.training.workers
    return Images(store, rows, names, canvas=CANVAS, max_pixels=data.max_pixels, cache_gb=0.0, workers=workers)


def bad_images(bad: Sequence[BadImage], num_images: int) -> str:
    """That some of the images cannot be read, which (the first 20), and what to do."""
    return (
        f"{len(bad):,} of {counted(num_images, 'image')} cannot be read; mend or remove them, or set"
        f" data.on_bad_image: drop\n  {listed(bad)}"
    )


def listed(bad: Sequence[BadImage]) -> str:
    """A line for each of the first 20 images that cannot be read, and how many more there are."""
    more = f"\n  ... and {len(bad) - _LISTED:,} more" if len(bad) > _LISTED else ""
    return "\n  ".join([in_a_line(f"{item.name}: {item.reason}") for item in bad[:_LISTED]]) + more
