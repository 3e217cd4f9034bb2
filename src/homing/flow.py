"""A run: recipe → pools → model → scan → rates → fine-tune → evaluate → outputs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from homing.errors import CheckpointError, DataError, DivergedError, Interrupted, RecipeError
from homing.evaluation.methods import Method, plan_method
from homing.evaluation.outcome import Outcome
from homing.features.cache import FeatureCache, HeldFeatures, user_cache
from homing.features.scan import Scanned
from homing.features.source_features import SourceFeatures
from homing.interrupts import StopOnSignal, stoppable
from homing.models.backbone import build_model
from homing.models.inputs import ImageInputs, batches_of
from homing.models.parts import adapt_batch_norms, classifier_of
from homing.outputs.artefact import digest_of, write_json
from homing.outputs.results import write_outputs, write_rates_only
from homing.outputs.run_folder import check_run_folder, discard_stump, open_run_folder
from homing.outputs.shared_data import write_shared
from homing.pools.images import BadImage, Images
from homing.pools.order import Rows
from homing.pools.problem import Problem, open_problem
from homing.progress import Progress
from homing.rates.learned.folds import held_out_folds
from homing.recipe.schema import Recipe
from homing.training.distributed import agree, on_main
from homing.training.liveness import watching
from homing.training.plan import num_steps_of
from homing.training.trackers import track, tracking, tracking_accelerator
from homing.training.workbench import Fitted, Workbench, training_settings


@dataclass(frozen=True)
class RunResult:
    """What a run came to: its folder, and `results.json` as it lies there."""

    folder: Path
    results: dict[str, Any]


def run(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Carry out a recipe.

    Args:
        recipe: From `read_recipe`.
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
    if recipe.by_target():
        return _run_each(recipe, Path(output), resume, overwrite, allow_change, quiet)
    return _run_one(recipe, output, None, resume, overwrite, allow_change, quiet)


def _run_each(
    recipe: Recipe, folder: Path, resume: bool, overwrite: bool, allow_change: bool, quiet: bool
) -> RunResult:
    """A run for each target, in a folder of its name; their source is scanned once."""
    accelerator, held = Accelerator(), HeldFeatures(feature_cache(recipe))
    on_main(accelerator, lambda: open_run_folder(folder, recipe, resume=resume, overwrite=overwrite))
    each = {}
    for name, single in recipe.by_target().items():
        Progress(quiet=quiet).say(f"target {name}")
        begun = resume and (folder / name / "recipe.yaml").exists()
        try:
            each[name] = _run_one(single, folder / name, held, begun, overwrite, allow_change and begun, quiet)
        except DataError as error:
            on_main(accelerator, lambda: discard_stump(folder))
            raise DataError(f"target {name}: {error}") from error
    results = on_main(accelerator, lambda: write_shared(folder, {name: one.results for name, one in each.items()}))
    return RunResult(folder, results)


def _run_one(
    recipe: Recipe,
    output: str | Path,
    held: HeldFeatures | None,
    resume: bool,
    overwrite: bool,
    allow_change: bool,
    quiet: bool,
) -> RunResult:
    """The run of a recipe with one target. held: features that runs over the same source share."""
    if allow_change and not resume:
        raise RecipeError("--allow-change goes with --resume: it is about what a checkpoint knows")
    folder, progress, started = Path(output), Progress(quiet=quiet), time.monotonic()
    accelerator = tracking_accelerator(recipe.output.trackers, folder)
    on_main(accelerator, lambda: check_run_folder(folder, recipe, resume=resume, overwrite=overwrite))
    if resume and (folder / "results.json").exists():
        progress.say(f"{folder}: this run is complete")
        return RunResult(folder, read_results(folder / "results.json"))
    with StopOnSignal() as stop, watching(accelerator), endings(folder, accelerator, stop):
        # the data is read before anything is written: where it is bad, no folder is begun and none is replaced
        bench = set_up(
            recipe,
            folder,
            accelerator,
            progress,
            resume=resume,
            allow_change=allow_change,
            stop_asked=lambda: stop.asked,
            held=held,
        )
        accelerator.wait_for_everyone()
        on_main(accelerator, lambda: open_run_folder(folder, recipe, resume=resume, overwrite=overwrite))
        if not recipe.trains:
            plan = bench.learned_rates(bench.problem.target_rows, recipe.training.target_weight)
            results = on_main(accelerator, lambda: write_rates_only(bench, plan, seconds=time.monotonic() - started))
            bench.images.close()
            return RunResult(folder, results)
        with tracking(accelerator, recipe.name, recipe.model_dump(mode="json")):
            names = dict.fromkeys((recipe.rates.method, *recipe.evaluation.baselines))
            outcomes = [fit_and_judge(name, bench) for name in names]
            results = on_main(accelerator, lambda: write_outputs(bench, outcomes, seconds=time.monotonic() - started))
            scores = {f"target/{key}": value for key, value in (results["target"] or {}).items()}
            track(accelerator, scores, num_steps_for(bench))
        (folder / "divergence.json").unlink(missing_ok=True)  # of an earlier attempt
    bench.images.close()
    return RunResult(folder, results)


def read_results(path: Path) -> dict[str, Any]:
    """What a finished run came to.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged ({error}); remove it, and --resume writes it again") from error
    return results


@contextmanager
def endings(folder: Path, accelerator: Accelerator, stop: StopOnSignal) -> Iterator[None]:
    """How a run ends early: no stump for bad data, `divergence.json` for what is not finite, a signal's exit code."""
    try:
        yield
    except DataError:
        if accelerator.is_main_process:
            discard_stump(folder)
        raise
    except DivergedError as error:
        if accelerator.is_main_process:
            write_json(folder / "divergence.json", {"message": str(error), **(error.details or {})})
        raise
    except Interrupted as error:
        if stop.signal is not None:
            error.exit_code = 128 + stop.signal
        raise


def set_up(
    recipe: Recipe,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
    *,
    resume: bool,
    allow_change: bool = False,
    stop_asked: Callable[[], bool] = lambda: False,
    held: HeldFeatures | None = None,
) -> Workbench:
    """Pools, model and decoded images; bad images are told or left out as the recipe says."""
    for warning in recipe.settings_without_effect():
        progress.say(f"warning: {warning}")
    problem = open_problem(recipe.data, trains=recipe.trains)
    agree(accelerator, "the pools", digest_of(*(text for pool in problem.pools for text in (*pool.ids, *pool.labels))))
    model, preprocessing, arguments = build_model(
        recipe.model.backbone,
        recipe.model.weights,
        num_classes=len(problem.classes) + len(problem.own_classes),
        image_size=recipe.model.image_size,
        seed=recipe.seed,
    )
    if problem.own_classes:
        classifier_of(model)  # is cut down to the target's classes in the end
    store, rows, names = problem.joined()
    images = Images(
        store,
        rows,
        names,
        canvas=preprocessing.canvas,
        interpolation=preprocessing.interpolation,
        max_pixels=recipe.data.max_pixels,
        cache_gb=recipe.data.cache_gb,
        workers=recipe.training.workers,
    )
    whole = problem
    model.to(accelerator.device).to(memory_format=torch.channels_last)
    source_features = SourceFeatures(
        model,
        ImageInputs(images, preprocessing, None, seed=recipe.seed, device=accelerator.device),
        len(problem.source),
        accelerator,
        precision=recipe.training.precision,
        cache=feature_cache(recipe) if held is None or recipe.training.batch_norm == "adapt" else held,
        progress=progress,
        stop_asked=stop_asked,
    )
    if not recipe.trains and recipe.training.batch_norm != "adapt":
        source_features.scan_all()  # one pass finds what cannot be read on the way
    known = source_features.scanned
    drop = recipe.data.on_bad_image == "drop"
    problem, bad = leave_out_bad(problem, images, progress, drop=drop, known=known, stop_asked=stop_asked)
    source_features.leave_out(bad)
    bench = Workbench(recipe, problem, images, model, arguments, preprocessing, accelerator, folder, resume, progress)
    bench.stop_asked, bench.allow_change, bench.source_features = stop_asked, allow_change, source_features
    bench.bad, source = tuple(bad), whole.source
    gone = [item.row for item in bad if item.row < len(source)]
    bench.dropped = tuple((source.ids[row], source.sources[row], source.labels[row]) for row in gone)
    if recipe.training.batch_norm == "adapt":
        adapt_batch_norms(model, (bench.pictures.evaluation(part) for part in batches_of(problem.target_rows, 64)))
    return bench


def feature_cache(recipe: Recipe) -> FeatureCache | None:
    """Where features are kept for the next run; those of a backbone adapted to one target serve no other."""
    wanted = recipe.output.cache
    if wanted == "none" or recipe.training.batch_norm == "adapt":
        return None
    return FeatureCache(user_cache() if wanted == "user" else Path(wanted), int(recipe.output.cache_gb * 1e9))


def leave_out_bad(
    problem: Problem,
    images: Images,
    progress: Progress,
    *,
    drop: bool,
    known: Scanned | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> tuple[Problem, list[BadImage]]:
    """Decode everything once, but the source where a scan did; stop at images that cannot be read, or leave them out.

    Raises:
        DataError: There are bad images and they are not to be dropped; lists up to 20.
    """
    unknown = np.arange(0 if known is None else len(problem.source), len(images))
    with progress.stage("read images", len(unknown)) as advance:
        bad = [] if known is None else [replace(item, name=images.names[item.row]) for item in known.bad]
        bad += images.find_bad(stoppable(advance, stop_asked), unknown)
    if not bad:
        return problem, bad
    listed = "\n  ".join([f"{item.name}: {item.reason}" for item in bad[:20]])
    more = f"\n  ... and {len(bad) - 20:,} more" if len(bad) > 20 else ""
    if not drop:
        raise DataError(
            f"{len(bad):,} of {len(images):,} images cannot be read; mend or remove them, or set"
            " data.on_bad_image: drop"
            f"\n  {listed}{more}"
        )
    progress.say(f"left out {len(bad):,} images that cannot be read:\n  {listed}{more}")
    gone = [item.row for item in bad]
    images.select(np.setdiff1d(np.arange(len(images)), gone))
    return problem.without(gone), bad


def fit_and_judge(name: str, bench: Workbench) -> Outcome:
    """Fit one method on the whole target, and judge it on the test, or on held-out folds where there is no test.

    A target without labels has no folds to be judged on.
    """
    started, problem = time.monotonic(), bench.problem
    method, fitted = fit(name, bench, problem.target_rows, name, name)
    logits = None
    if problem.test is not None:
        logits = bench.predict(fitted.model, problem.test_rows)
    elif problem.is_measured:
        logits = cross_validate(name, bench)
    return Outcome(method, fitted, logits, time.monotonic() - started)


def fit(name: str, bench: Workbench, target: Rows, place: str, title: str) -> tuple[Method, Fitted]:
    """Plan a method with some target rows and fine-tune by the plan."""
    method = plan_method(name, bench, target)
    num_steps = max(1, num_steps_for(bench) // method.training.passes)  # the same number of gradients for every method
    return method, bench.fit(method.training, target, training_settings(bench.recipe, num_steps), place, title)


def num_steps_for(bench: Workbench) -> int:
    """Steps of a method that takes each sample's gradient once, in every fold."""
    training, problem = bench.recipe.training, bench.problem
    nominal = 10.0 if training.target_weight is None else training.target_weight
    if not problem.has_target_labels:
        nominal = 0.0
    num_rows = len(problem.source) + nominal * len(problem.target)
    return num_steps_of(training.epochs, training.steps, num_rows, training.batch_size)


def cross_validate(name: str, bench: Workbench) -> Tensor:
    """Logits of every target row from a model that never saw it; everything is done anew in each fold."""
    rows, folds = bench.problem.target_rows, bench.recipe.evaluation.folds
    logits = torch.empty(len(rows), len(bench.problem.classes))
    for number, held_out in enumerate(held_out_folds(bench.labels[rows], folds, bench.recipe.seed), start=1):
        seen = np.setdiff1d(rows, rows[held_out])
        _, fitted = fit(name, bench, seen, f"{name}-fold-{number}", f"{name}, fold {number} of {folds}")
        logits[held_out] = bench.predict(fitted.model, rows[held_out])
    return logits
