"""`homing validate`: everything that a run would stumble over, found in one pass, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from homing.errors import DataError, HomingError, RecipeError
from homing.evaluation.metrics import check_metric
from homing.outputs.run_folder import check_run_folder
from homing.pools.ambiguities import ambiguities
from homing.pools.class_matching import union_warnings
from homing.pools.class_names import quoted
from homing.pools.folder import UNLABELLED
from homing.pools.images import BadImage, Loaded, describe_blank
from homing.pools.label_sets import class_counts, classes_of
from homing.pools.looks import Looks, looks_of
from homing.pools.near_duplicates import twin_lines
from homing.pools.pool import Pool, ReadAs
from homing.pools.problem import Problem, match_classes, overlaps, read_roles
from homing.pools.repeated import check_some_are_new
from homing.preparing import build_backbone, rehearse
from homing.progress import Progress
from homing.recipe.idle import settings_without_effect
from homing.recipe.schema import Recipe
from homing.terminal import counted, in_a_line
from homing.training.optimizer import optimizer_of
from homing.training.trackers import check_trackers, tracking_accelerator
from homing.unpacking import training_settings
from homing.workable import check_epoch, hindrances, small_images

_LISTED = 12  # classes by name


@dataclass
class Findings:
    """What a validation found.

    Attributes:
        errors: Of the data; they stop a run.
        refused: Of the recipe, for this machine and this output; so do they.
        warnings: They do not.
        pools: What was read for each role.
        num_outputs: Of the model; 0 where that is not known.
    """

    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_outputs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        wrong = [*self.refused, *self.errors]
        return {"valid": not wrong, "errors": wrong, "warnings": self.warnings, "pools": self.pools}

    @property
    def exit_code(self) -> int:
        """As a run would end: 3 for its data, 2 for its recipe, 0 for neither."""
        return DataError.exit_code if self.errors else RecipeError.exit_code if self.refused else 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """An error that ends the block is one of the findings."""
        try:
            yield
        except DataError as error:
            self.errors += str(error).splitlines()
        except HomingError as error:
            self.refused += str(error).splitlines()

    def lines(self) -> list[str]:
        """One line a finding, and a verdict."""
        counts = [line for role, pool in self.pools.items() for line in _described(role, pool)]
        wrong = [*self.refused, *self.errors]
        verdict = f"{len(wrong):,} error{'s' * (len(wrong) > 1)}" if wrong else "valid"
        found = [f"error: {text}" for text in wrong] + [f"warning: {text}" for text in self.warnings]
        return [*map(in_a_line, [*counts, *found]), verdict]


def _described(role: str, pool: dict[str, Any]) -> Iterator[str]:
    """What was read for a role, and as what."""
    if not pool["classes"]:
        yield f"{role}: {counted(pool['num_samples'], 'image')} without labels ({pool['path']})"
    else:
        size = f"{counted(pool['num_samples'], 'image')}, {counted(pool['num_classes'], 'class')}"
        yield f"{role}: {size} ({pool['path']})"
        names = pool["classes"][:_LISTED]
        more = f", ... {pool['num_classes'] - _LISTED:,} more" if pool["num_classes"] > _LISTED else ""
        yield f"  classes: {', '.join(map(repr, names))}{more}"
    for read in pool["read_as"]:
        used = ", ".join(f"{what} from {column}" for what, column in read["columns"].items())
        skipped = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in read["skipped"].items())
        classes = f" of {read['num_classes']:,} classes" if read["num_classes"] else ""
        parts = [read["kind"], f"{read['num_samples']:,} rows{classes}", used, read["selection"]]
        parts += [f"version {read['version']}"] if read["version"] and read["version"] not in read["kind"] else []
        parts += [f"not read: {skipped}"] if skipped else []
        renames = ", ".join(f"{old!r} to {new!r}" for old, new in list(read["renamed"].items())[:_LISTED])
        more = f", ... {len(read['renamed']) - _LISTED:,} more" if len(read["renamed"]) > _LISTED else ""
        parts += [f"renamed: {renames}{more}"] if renames else []
        yield f"  {read['name']}: {'; '.join(filter(None, parts))}"


def validate(recipe: Recipe, progress: Progress, output: Path, *, is_chosen: bool = True) -> Findings:
    """Look for everything that a run would refuse, by the checks that a run itself makes.

    Args:
        recipe: As it was read; so far it is valid by itself.
        progress: Told of the stages.
        output: Folder that the run would go to.
        is_chosen: Whether it was asked for; else another one can be, and what is wrong with it is a warning.
    """
    findings = validate_data(recipe, progress)
    with findings.noting():
        check_trackers(recipe.output.trackers)
    try:
        check_run_folder(output, recipe, resume=False, overwrite=False)
    except HomingError as error:
        (findings.refused if is_chosen else findings.warnings).append(str(error))
    single = next(iter(recipe.by_target().values()), recipe)
    model = None
    with findings.noting(), progress.stage("build model", 1) as advance:
        device = tracking_accelerator((), output).device
        model, preprocessing, _ = build_backbone(single, max(2, findings.num_outputs), device)
        rehearse(single, model, preprocessing, device)
        advance(1)
    if model is None and recipe.trains:
        settings = training_settings(recipe, num_steps=1)
        with findings.noting():  # by itself, where there is no model to step with it
            optimizer_of(nn.Linear(1, 1), replace(settings, layer_decay=None))
    return findings


def validate_data(recipe: Recipe, progress: Progress) -> Findings:
    """Read the pools, decode every image once, and look for overlaps between the roles.

    The recipe itself was checked when it was read. What is wrong with one pool or class does not hide what is wrong
    with the others. Bad images are errors, or warnings where the recipe drops them.
    """
    if each := recipe.by_target():
        return _of_all({name: validate_data(single, progress) for name, single in each.items()})
    findings = Findings(warnings=settings_without_effect(recipe))
    pools, wrong = read_roles(recipe.data, sets=recipe.is_multi_label)
    findings.errors += wrong
    problem = None
    if not wrong:
        with findings.noting():
            problem = match_classes(pools, recipe.data, trains=recipe.trains, sets=recipe.is_multi_label)
            findings.num_outputs = problem.num_outputs
            if problem.only_in_target:
                findings.warnings += union_warnings(problem.source, problem.target)
            if recipe.trains:
                check_metric(recipe.evaluation.metric, problem)
    data = recipe.data
    test = data.target_pool if data.test_split is not None else data.test_pool
    specs = {"source": data.sources, "target": (data.target_pool,), "test": (test,)}
    specs |= {"unlabelled": (data.unlabelled_pool,)}
    for role, pool in pools.items():
        findings.pools[role] = _summary(pool, ", ".join(spec.path for spec in specs[role] if spec is not None))
    findings.warnings += ambiguities(pools)
    findings.warnings += overlaps(pools)
    bad, blank, looks = _find_odd(recipe, pools, progress)
    findings.warnings += twin_lines(pools, looks, data.max_pixels)
    _tell_bad(recipe, pools, bad, findings)
    findings.warnings += blank
    if problem is not None:
        rows = [item.row for item in bad]
        with suppress(DataError):  # a role of which nothing is left: told already
            _check_counts(recipe, problem.without(rows) if _drops(recipe) else problem, findings)
            readable = problem.without(rows)
            with findings.noting():
                check_some_are_new(readable, len(pools.get("unlabelled", ())))
    return findings


def _drops(recipe: Recipe) -> bool:
    return recipe.data.on_bad_image == "drop"


def _summary(pool: Pool, path: str) -> dict[str, Any]:
    """Plain values that describe a pool."""
    read_as = [_read_as(one, pool) for one in pool.read_as]
    classes = [] if pool.classes == (UNLABELLED,) else list(classes_of(pool))
    return {
        "num_samples": len(pool),
        "num_classes": len(classes),
        "path": path,
        "classes": classes,
        "read_as": read_as,
    }


def _read_as(one: ReadAs, pool: Pool) -> dict[str, Any]:
    """What one of the pools of a role was read as."""
    rows = np.arange(len(pool))
    if len(pool.read_as) > 1:
        codes, names = pool.sources.encode()
        rows = np.flatnonzero(codes == names.index(one.name)) if one.name in names else rows[:0]
    classes = pool.labels.take(rows).unique()
    return {
        "name": one.name,
        "kind": one.kind,
        "num_samples": len(rows),
        "num_classes": 0 if classes == (UNLABELLED,) else len(classes),
        "columns": dict(one.columns),
        "skipped": dict(sorted(one.skipped.items())),
        "selection": one.selection,
        "version": one.version,
        "renamed": dict(one.renamed),
    }


def _tell_bad(recipe: Recipe, pools: Mapping[str, Pool], bad: list[BadImage], findings: Findings) -> None:
    messages = [f"{item.name}: {item.reason}" for item in bad]
    if not _drops(recipe):
        findings.errors += messages
        return
    findings.warnings += messages
    rows, start = np.array([item.row for item in bad], np.int64), 0
    for role, pool in pools.items():
        if np.count_nonzero((rows >= start) & (rows < start + len(pool))) == len(pool):
            findings.errors.append(f"{role}: none of its {counted(len(pool), 'image')} can be read")
        start += len(pool)


def _of_all(each: dict[str, Findings]) -> Findings:
    """The findings of several targets as one, each told once."""
    whole = Findings()
    for name, one in each.items():
        whole.num_outputs = max(whole.num_outputs, one.num_outputs)
        for kind in ("errors", "refused", "warnings"):
            named = [text if text.startswith("source") else f"{name}: {text}" for text in getattr(one, kind)]
            getattr(whole, kind).extend(text for text in named if text not in getattr(whole, kind))
        whole.pools |= {role if role == "source" else f"{role} {name}": pool for role, pool in one.pools.items()}
    return whole


def _find_odd(recipe: Recipe, pools: Mapping[str, Pool], progress: Progress) -> tuple[list[BadImage], list[str], Looks]:
    """Images that cannot be read, a warning of those that are of one colour, if there are any, and looks of all."""
    images = small_images(recipe, pools)
    looks = np.zeros(len(images), np.uint64)

    def see(loaded: Loaded) -> None:
        looks[loaded.rows[loaded.good]] = looks_of(loaded.canvases)

    with progress.stage("read images", len(images)) as advance:
        bad, blank = images.find_odd(advance, see)
    images.close()
    return bad, [describe_blank([images.names[row] for row in blank], len(images))] if blank else [], looks


def _check_counts(recipe: Recipe, problem: Problem, findings: Findings) -> None:
    """Sizes that a run cannot work with, and sizes that make its figures weak."""
    findings.errors += hindrances(recipe, problem)
    with findings.noting():
        check_epoch(recipe, problem)
    if not problem.has_target_labels:
        return
    counts = class_counts(problem.target)
    if single := sorted(name for name, count in counts.items() if count == 1):
        findings.warnings.append(f"target: a single image of {quoted(single)}; its folds cannot judge such a class")
    if len(counts) == 1:
        findings.warnings.append(f"target: all images are of the class {next(iter(counts))!r}")
    if absent := sorted(set(problem.classes) - set(counts)):
        findings.warnings.append(f"target: no image of {quoted(absent)}")
