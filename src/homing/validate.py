"""`homing validate`: everything that can be wrong with a recipe's data, found before anything is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from homing.errors import DataError, HomingError
from homing.pools.images import BadImage, Images
from homing.pools.problem import Problem, open_problem, overlaps
from homing.progress import Progress
from homing.recipe.schema import Recipe

_SMALL_CANVAS = 32  # decoding is the check; the pixels are thrown away


@dataclass
class Findings:
    """What a validation found: errors stop a run, warnings do not. `pools` describes what was read."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {"valid": not self.errors, "errors": self.errors, "warnings": self.warnings, "pools": self.pools}

    def lines(self) -> list[str]:
        """One line a finding, and a verdict."""
        counts = [
            f"{role}: {pool['num_samples']:,} images, {pool['num_classes']} classes ({pool['path']})"
            for role, pool in self.pools.items()
        ]
        verdict = "valid" if not self.errors else f"{len(self.errors):,} error{'s' * (len(self.errors) > 1)}"
        found = [f"error: {text}" for text in self.errors] + [f"warning: {text}" for text in self.warnings]
        return [*counts, *found, verdict]


def validate_data(recipe: Recipe, progress: Progress) -> Findings:
    """Read the pools, decode every image once, and look for overlaps between the roles.

    The recipe itself was checked when it was read. Bad images are errors, or warnings where the recipe drops them.
    """
    if each := recipe.by_target():
        return _of_all({name: validate_data(single, progress) for name, single in each.items()})
    findings = Findings(warnings=recipe.settings_without_effect())
    try:
        problem = open_problem(recipe.data, trains=recipe.trains)
    except HomingError as error:
        findings.errors += str(error).splitlines()
        return findings
    specs = {"source": recipe.data.sources, "target": (recipe.data.target_pool,), "test": (recipe.data.test_pool,)}
    for role, pool in zip(specs, problem.pools, strict=False):
        paths = ", ".join(spec.path for spec in specs[role] if spec is not None)
        findings.pools[role] = {"num_samples": len(pool), "num_classes": len(pool.classes), "path": paths}
    findings.warnings += overlaps(problem)
    bad = _find_bad(recipe, problem, progress)
    told = [f"{item.name}: {item.reason}" for item in bad]
    if recipe.data.on_bad_image == "error":
        findings.errors += told
    else:
        findings.warnings += told
        try:
            problem = problem.without(item.row for item in bad)
        except DataError as error:
            findings.errors.append(str(error))
    _check_counts(recipe, problem, findings)
    return findings


def _of_all(each: dict[str, Findings]) -> Findings:
    """The findings of several targets as one, each told once."""
    whole = Findings()
    for name, one in each.items():
        for kind in ("errors", "warnings"):
            named = [text if text.startswith("source") else f"{name}: {text}" for text in getattr(one, kind)]
            getattr(whole, kind).extend(text for text in named if text not in getattr(whole, kind))
        whole.pools |= {role if role == "source" else f"{role} {name}": pool for role, pool in one.pools.items()}
    return whole


def _find_bad(recipe: Recipe, problem: Problem, progress: Progress) -> list[BadImage]:
    store, rows, names = problem.joined()
    images = Images(
        store,
        rows,
        names,
        canvas=_SMALL_CANVAS,
        max_pixels=recipe.data.max_pixels,
        cache_gb=0.0,
        workers=recipe.training.workers,
    )
    with progress.stage("read images", len(images)) as advance:
        bad = images.find_bad(advance)
    images.close()
    return bad


def _check_counts(recipe: Recipe, problem: Problem, findings: Findings) -> None:
    """Sizes that a run cannot work with, and sizes that make its figures weak."""
    if not problem.has_target_labels:
        return
    is_judged = recipe.data.shares_labels and recipe.rates.method == "hierarchical"
    folds = recipe.rates.folds if is_judged else 0
    folds = max(folds, recipe.evaluation.folds if problem.test is None else 0)
    if len(problem.target) < folds:
        findings.errors.append(
            f"target: {len(problem.target)} images are fewer than the {folds} folds; label more images, or lower"
            " rates.folds and evaluation.folds"
        )
    counts = Counter(problem.target.labels)
    if single := sorted(name for name, count in counts.items() if count == 1):
        findings.warnings.append(f"target: a single image of {', '.join(single)}; its folds cannot judge such a class")
    if len(counts) == 1:
        findings.warnings.append(f"target: all images are of the class {next(iter(counts))}")
    if absent := sorted(set(problem.classes) - set(counts)):
        findings.warnings.append(f"target: no image of {', '.join(absent)}")
    if recipe.data.truth is not None:
        for column in (recipe.data.truth.matches_column, recipe.data.truth.clean_column):
            try:
                problem.source.flags(column)
            except DataError as error:
                findings.errors.append(str(error))
