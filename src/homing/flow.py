"""A run: recipe → pools → features → rates → fine-tune → evaluate → outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homing.budget import with_steps
from homing.endings import clean_up, endings
from homing.errors import DataError, RecipeError
from homing.evaluation.outcome import Outcome
from homing.evaluation.planning import Planned, Planner
from homing.interrupts import StopOnSignal
from homing.memory import trim_heap
from homing.methods import METHODS
from homing.outputs.added import write_added
from homing.outputs.finished import (
    is_complete,
    read_results,
    write_missing_report,
    write_outputs,
    write_rates_only,
)
from homing.outputs.going_on import is_prolonged, missing_methods
from homing.outputs.in_short import as_html, in_short
from homing.outputs.lock import folder_lock
from homing.outputs.ownership import check_no_part_of_a_run, check_pools, check_same_pools, note_pools
from homing.outputs.run_folder import check_run_folder, discard_stump, open_run_folder
from homing.outputs.shared_data import write_shared
from homing.outputs.spent import spending
from homing.outputs.thumbnails import shown_of_recipe
from homing.pools.order import Rows
from homing.pools.problem import open_problem
from homing.preparing import Prepared, digests_of, prepare
from homing.progress import Progress
from homing.rates.learned.folds import held_out_folds
from homing.recipe.reading import as_recipe, recipe_of_run
from homing.recipe.schema import Recipe
from homing.session import Session
from homing.training.branches import fit_branches
from homing.training.distributed import on_main
from homing.training.fit import Fit, Fitted, fit, predict
from homing.training.liveness import watching
from homing.training.trackers import track, tracking, tracking_accelerator
from homing.unpacking import (
    branches_of,
    fit_settings,
    forecast_of,
    methods_of,
    num_steps_for,
    plan_settings,
    steps_of,
    training_settings,
)
from homing.workable import check_readable, check_workable


@dataclass(frozen=True)
class RunResult:
    """What a run came to: its folder, and `results.json` as it lies there. A notebook shows the figures."""

    folder: Path
    results: dict[str, Any]

    def __repr__(self) -> str:
        return f"RunResult({str(self.folder)!r}: {in_short(self.results)})"

    def _repr_html_(self) -> str:
        return as_html(self.folder, self.results)


@dataclass(frozen=True)
class Options:
    """How a run begins, as on the command line."""

    resume: bool = False
    overwrite: bool = False
    allow_change: bool = False
    quiet: bool = False


def run(
    recipe: Recipe | str | Path | Mapping[str, Any],
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Carry out a recipe.

    Args:
        recipe: From `read_recipe`; or a path of one, the name of one that is shipped, or its tree as a dict.
        output: Run folder.
        resume: Go on with the run in that folder.
        overwrite: Replace the run in that folder.
        allow_change: When resuming, pools may have changed: rates and visits follow the sample ids.
        quiet: Say nothing on stderr.

    Returns:
        The folder and its results.

    Raises:
        HomingError: Its subclasses say what was wrong and carry the exit code.
    """
    recipe = as_recipe(recipe)
    options = Options(resume, overwrite, allow_change, quiet)
    if allow_change and not resume:
        raise RecipeError("--allow-change goes with --resume: it is about what a checkpoint knows")
    check_no_part_of_a_run(Path(output))
    if recipe.by_target():
        return _run_each(recipe, Path(output), options)
    return _run_one(recipe, Path(output), options)


def _run_each(recipe: Recipe, folder: Path, options: Options) -> RunResult:
    """A run for each target, in a folder of its name; what was scanned for one is there for the others."""
    accelerator = tracking_accelerator((), folder)
    begins = {"resume": options.resume, "overwrite": options.overwrite}
    on_main(accelerator, lambda: check_run_folder(folder, recipe, **begins))
    each, was_there = {}, folder.exists()
    with folder_lock() as lock:
        on_main(accelerator, lambda: lock.take(folder))
        if options.overwrite:  # where the data is bad, what is there stays
            on_main(accelerator, lambda: check_pools_of_each(recipe))
        on_main(accelerator, lambda: lock.take(folder, makes=True))
        if not options.overwrite:
            on_main(accelerator, lambda: open_run_folder(folder, recipe, **begins))
        for number, (name, single) in enumerate(recipe.by_target().items()):
            replaces = options.overwrite and not number  # what is there goes once the first one has seen the source
            opens = (lambda: open_run_folder(folder, recipe, **begins)) if replaces else None
            Progress(quiet=options.quiet).say(f"target {name}")
            begun = options.resume and (folder / name / "recipe.yaml").exists()
            own = replace(options, resume=begun, allow_change=options.allow_change and begun)
            try:
                each[name] = _run_one(single, folder / name, own, shared=folder, opens=opens)
            except DataError as error:  # no collective here: another process may have failed otherwise, or not at all
                if accelerator.is_main_process:
                    discard_stump(folder, was_there=was_there)
                raise DataError(f"target {name}: {error}") from error
            except RecipeError:
                if accelerator.is_main_process and not options.resume:
                    discard_stump(folder, was_there=was_there)
                raise
        on_main(accelerator, lambda: check_same_pools([folder / name for name in each], ["source"]))
        results = on_main(accelerator, lambda: write_shared(folder, {name: one.results for name, one in each.items()}))
        on_main(accelerator, lambda: clean_up(folder))
    return RunResult(folder, results)


def check_pools_of_each(recipe: Recipe) -> None:
    """Whether the pools of every target can be worked with, and read but for the source's pictures.

    Raises:
        DataError: Those of one cannot; says of which target.
        RecipeError: As `check_workable`.
    """
    for name, single in recipe.by_target().items():
        try:
            problem = open_problem(single.data, trains=single.trains, sets=single.is_multi_label)
            check_workable(single, problem)
            check_readable(single, problem)
        except DataError as error:
            raise DataError(f"target {name}: {error}") from error


def _run_one(
    recipe: Recipe,
    folder: Path,
    options: Options,
    shared: Path | None = None,
    opens: Callable[[], None] | None = None,
) -> RunResult:
    """The run of a recipe with one target: the arrows of this file's first line, in turn.

    Args:
        recipe: Of it.
        folder: Of it.
        options: How it begins.
        shared: Folder of the runs that it is one of.
        opens: Opens that folder, before this one is opened.
    """
    progress, started, was_there = Progress(quiet=options.quiet), time.monotonic(), folder.exists()
    accelerator = tracking_accelerator(recipe.output.trackers, folder)
    begins = {"resume": options.resume, "overwrite": options.overwrite}
    on_main(accelerator, lambda: check_run_folder(folder, recipe, **begins))
    with (
        folder_lock() as lock,
        StopOnSignal() as stop,
        watching(accelerator),
        endings(folder, recipe.sha256(), accelerator, stop, is_new=not options.resume, was_there=was_there),
    ):
        on_main(accelerator, lambda: lock.take(folder))
        if options.resume and is_complete(folder):
            on_main(accelerator, lambda: check_finished(recipe, folder, options))
            if not on_main(accelerator, lambda: goes_on(folder, recipe)):
                on_main(accelerator, lambda: clean_up(folder))  # a kill after the mark left it
                if recipe.output.report:
                    on_main(accelerator, lambda: write_missing_report(folder, lambda: shown_of_recipe(recipe)))
                progress.say(f"{folder}: this run is complete")
                return RunResult(folder, read_results(folder))
        keeps_on = options.resume, options.allow_change
        session = Session(accelerator, folder, progress, recipe.seed, *keeps_on, lambda: stop.asked, shared)
        # the data is read before anything is written: where it is bad, no folder is begun and none is replaced
        with prepare(recipe, session) as prepared:
            accelerator.wait_for_everyone()
            if opens is not None:
                on_main(accelerator, opens)
            on_main(accelerator, lambda: lock.take(folder, makes=True))
            on_main(accelerator, lambda: open_run_folder(folder, recipe, **begins))
            on_main(accelerator, lambda: note_pools(folder, prepared.listed, prepared.pictures))
            with spending(folder, "run", writes=accelerator.is_main_process, started=started) as spent:
                results = (trained if recipe.trains else rated)(recipe, session, prepared, spent)
        on_main(accelerator, lambda: clean_up(folder))
    return RunResult(folder, results)


def rated(recipe: Recipe, session: Session, prepared: Prepared, spent: Callable[[], float]) -> dict[str, Any]:
    """Rates alone: nothing is trained."""
    material = prepared.material
    plan = Planner(session, material, plan_settings(recipe)).rates("hierarchical", material.problem.target_rows)
    return on_main(
        session.accelerator,
        lambda: write_rates_only(prepared.facts(recipe, session), plan, seconds=spent()),
    )


def trained(recipe: Recipe, session: Session, prepared: Prepared, spent: Callable[[], float]) -> dict[str, Any]:
    """All methods of a run, or those that a finished one lacks: rates, fine-tuning, evaluation, outputs."""
    methods = on_main(session.accelerator, lambda: yet_to_train(session.folder, recipe))
    write = write_outputs if methods == methods_of(recipe) else write_added
    with tracking(session.accelerator, recipe.name, recipe.model_dump(mode="json")):
        settled, problem = with_steps(recipe, session, prepared), prepared.material.problem
        session.progress.expect(forecast_of(settled, problem, methods))
        outcomes = []
        for name in methods:
            with spending(session.folder, name, writes=session.accelerator.is_main_process) as took:
                outcomes.append(replace(fit_and_judge(name, settled, session, prepared), seconds=took()))
        trim_heap()
        facts = prepared.facts(recipe, session)
        results = on_main(session.accelerator, lambda: write(facts, outcomes, seconds=spent()))
        scores = {f"target/{key}": value for key, value in (results["target"] or {}).items()}
        track(session.accelerator, scores, num_steps_for(settled, problem))
    return results


def fit_and_judge(name: str, recipe: Recipe, session: Session, prepared: Prepared) -> Outcome:
    """Fit one method on the whole target, and judge it on the test, or on held-out folds where there is no test.

    A target without labels has no folds to be judged on.
    """
    problem = prepared.material.problem
    planned, one = _planned(name, recipe, session, prepared, problem.target_rows, name, METHODS[name].title)
    keeps_activations = prepared.material.activations is not None
    count = branches_of(recipe, keeps_activations=keeps_activations) if METHODS[name].trains else 1
    fitted = fit_branches(session, prepared.material, fit_settings(recipe), one, count, planned.rates.guesses)
    planned = replace(planned, rates=replace(planned.rates, guesses=fitted.guesses))
    logits, folds = None, None
    if recipe.chooses or (problem.test is None and problem.is_measured):
        folds = cross_validate(name, recipe, session, prepared)
    logits = folds if problem.test is None else _predict(recipe, session, prepared, fitted, problem.test_rows)
    return Outcome(planned, fitted, logits, folds=folds)


def cross_validate(name: str, recipe: Recipe, session: Session, prepared: Prepared) -> Tensor:
    """Logits of every target row from a model that never saw it; everything is done anew in each fold.

    A fold has one branch: its figure is that of a single fine-tuning, which an average of several does not fall behind.
    """
    problem, folds = prepared.material.problem, recipe.evaluation.folds
    rows = problem.target_rows
    logits = torch.empty(len(rows), len(problem.classes))
    for number, held_out in enumerate(held_out_folds(prepared.material.groups[rows], folds, recipe.seed), start=1):
        seen = np.setdiff1d(rows, rows[held_out.numpy()])
        own = prepared.seeing(seen, recipe, session)
        title = f"{METHODS[name].title}, fold {number} of {folds}"
        _, one = _planned(name, recipe, session, own, seen, f"{name}-fold-{number}", title)
        fitted = fit(session, own.material, fit_settings(recipe), one)
        logits[held_out] = _predict(recipe, session, own, fitted, rows[held_out.numpy()])
    return logits


def _planned(
    name: str, recipe: Recipe, session: Session, prepared: Prepared, target: Rows, place: str, title: str
) -> tuple[Planned, Fit]:
    """The plan of a method with some target rows, and the fine-tuning by that plan."""
    planner = Planner(session, prepared.material, plan_settings(recipe))
    planned = planner.plan(name, target)
    trim_heap()
    num_steps = steps_of(name, num_steps_for(recipe, prepared.material.problem))
    identity = planner.identity(target) | {"rates": planned.training.digest()}
    return planned, Fit(place, title, planned.training, target, training_settings(recipe, num_steps), identity)


def _predict(recipe: Recipe, session: Session, prepared: Prepared, fitted: Fitted, rows: Rows) -> Tensor:
    return predict(session, prepared.material, fitted.model, rows, precision=recipe.training.precision)


def yet_to_train(folder: Path, recipe: Recipe) -> tuple[str, ...]:
    """Methods of a run, but those that a finished one in its folder has trained."""
    return missing_methods(read_results(folder), recipe) if is_complete(folder) else methods_of(recipe)


def goes_on(folder: Path, recipe: Recipe) -> bool:
    """Whether a finished run has more to do by a recipe that it may go on with."""
    return bool(yet_to_train(folder, recipe)) or is_prolonged(recipe_of_run(folder), recipe)


def check_finished(recipe: Recipe, folder: Path, options: Options) -> None:
    """A run that is complete counts for the pools that it saw alone.

    Raises:
        CheckpointError: They have changed since.
    """
    if not options.allow_change or goes_on(folder, recipe):
        check_pools(folder, digests_of(open_problem(recipe.data, trains=recipe.trains, sets=recipe.is_multi_label)))
