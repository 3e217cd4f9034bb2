"""The content of `results.json`: what was asked, of which data, what came out, and what the reader must know first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from homing.evaluation.calibration import calibration
from homing.evaluation.metrics import confusion, metrics
from homing.evaluation.paired import Interval, paired_intervals
from homing.evaluation.per_class import absent_classes, per_class
from homing.evaluation.rejection import rejection
from homing.memory import peak_rss_mb
from homing.methods import REFERENCE
from homing.outputs.facts import RunFacts
from homing.outputs.own_images import own_images
from homing.outputs.pool_warnings import (
    label_warnings,
    mixed_up_warnings,
    overlap_warnings,
    repeated_warning,
    target_warnings,
    twin_warnings,
)
from homing.outputs.provenance import describe_data, versions
from homing.outputs.unlabelled_files import describe_unlabelled, guess_warnings
from homing.pools.ambiguities import ambiguities
from homing.pools.class_matching import union_warnings
from homing.pools.class_names import quoted
from homing.rates.learned.folds import held_out_folds
from homing.rates.learned.plan import effective_sample_size

if TYPE_CHECKING:
    from homing.evaluation.outcome import Outcome
    from homing.pools.problem import Problem
    from homing.pools.rows import ProblemRows
    from homing.rates.learned.plan import RatePlan

_SEVERAL = "an image may be of several classes (task: multi_label)"
_NOT_OF_SETS: dict[str, Any] = {
    "calibration": {"temperature": None, "reason": _SEVERAL},
    "rejection": {"aurc": None, "points": [], "curve": [], "reason": _SEVERAL},
    "confusion": None,
}
"""In the place of what only answers of one class each have."""


def predictions(facts: RunFacts, outcomes: Sequence[Outcome]) -> dict[str, Tensor]:
    """Logits of each method on the judged rows, and under `labels` what is right."""
    logits = {item.method.name: item.logits.contiguous() for item in outcomes if item.logits is not None}
    return {**logits, "labels": judged_labels(facts.problem, facts.labels).contiguous()}


def folds_of(facts: RunFacts, outcomes: Sequence[Outcome]) -> dict[str, Tensor]:
    """Cross-validated logits of each method on the target, and `labels`, where these choose the model; else nothing."""
    if not facts.asked.chooses:
        return {}
    logits = {item.method.name: item.folds.contiguous() for item in outcomes if item.folds is not None}
    return {**logits, "labels": _answers(facts.problem, facts.labels, facts.problem.target_rows).contiguous()}


def judged_labels(problem: Problem, labels: Tensor) -> Tensor:
    """What is right of the rows that methods are judged by: the test's, or the target's where there is none."""
    return _answers(problem, labels, problem.test_rows if problem.test is not None else problem.target_rows)


def _answers(problem: Problem, labels: Tensor, rows: ProblemRows) -> Tensor:
    """What is right of some rows: int64 [M], or bool [M, C] where a row is of a set of classes."""
    own = labels[rows]
    return own if problem.label_sets is None else torch.from_numpy(problem.label_sets.holds)[own]


def collect(facts: RunFacts, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The content of `results.json`."""
    main = outcomes[0]
    gradients = int(main.fitted.visits.sum())
    return described(facts, main.method.rates, main.fitted.rates, main.fitted.guessed) | {
        "headline": "unmeasured",
        "metric": facts.asked.metric,
        "target": None,
        "cost": cost(facts, seconds, source_gradients=gradients)
        | {
            "method_seconds": {item.method.name: round(item.seconds, 2) for item in outcomes},
            "method_gradients": {item.method.name: item.fitted.gradients for item in outcomes},
            "branches": main.fitted.branches,
        },
        "baselines": {},
        "warnings": warnings_of(facts, main),
        **figures(facts, predictions(facts, outcomes)),
        **_own(facts, main.logits),
    }


def collect_rates_only(facts: RunFacts, plan: RatePlan, seconds: float) -> dict[str, Any]:
    """The same of a run that stopped after the rates."""
    return described(facts, plan, plan.rates, torch.zeros(0)) | {
        "headline": "none",
        "target": None,
        "cost": cost(facts, seconds, source_gradients=0),
        "baselines": {},
        "warnings": [*facts.asked.without_effect, *plan_warnings(facts, plan), *data_warnings(facts)],
        **_own(facts, None),
    }


def figures(facts: RunFacts, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """What was measured on labelled images of the target's domain; nothing where there are none.

    Args:
        facts: The run.
        found: As `predictions`; the run's own method first.
    """
    problem, asked, own = facts.problem, facts.asked, facts.asked.method
    labels = found["labels"]
    if not problem.is_measured:
        return {}
    seed = asked.seed
    scores = {name: metrics(logits, labels, seed=seed) for name, logits in found.items() if name != "labels"}
    others = [name for name in scores if name != own]
    against = REFERENCE if REFERENCE in others else next((name for name in others if name != "oracle"), None)
    return {
        "headline": "test" if problem.test is not None else "cross_validated",
        "target": scores[own],
        "baselines": {
            name: scores[name] | _gains(paired_intervals(found[own][None], found[name][None], labels, seed=seed))
            for name in others
        },
        "per_class_against": against,
        "per_class": per_class(
            found[own], labels, problem.classes, against=None if against is None else found[against], seed=seed
        ),
        "classes_without_images": absent_classes(labels, problem.classes),
        **(_NOT_OF_SETS if asked.is_multi_label else _of_one_class_each(facts, found[own], labels)),
    }


def _of_one_class_each(facts: RunFacts, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """What only answers of one class each have."""
    return {
        "calibration": calibration(logits, labels, _folds(facts, labels)),
        "rejection": rejection(logits, labels),
        "confusion": confusion(logits, labels, len(facts.problem.classes)),
    }


def _own(facts: RunFacts, logits: Tensor | None) -> dict[str, Any]:
    """Which of the target's own images the report shows; nothing unless the recipe asks for it."""
    return {"own_images": own_images(facts.problem, facts.labels, logits)} if facts.asked.show_target else {}


def _folds(facts: RunFacts, labels: Tensor) -> list[Tensor] | None:
    """The held-out rows of each fold that methods were judged on; None where they were judged on a test."""
    if facts.problem.test is not None:
        return None
    return list(held_out_folds(labels, facts.asked.folds, facts.asked.seed))


def _gains(gains: dict[str, Interval]) -> dict[str, Any]:
    """The run's figures minus a baseline's; the accuracy's by a name of its own too, as it always was."""
    return {"ours_minus_this": gains["accuracy"], "gains": gains}


def described(facts: RunFacts, plan: RatePlan, rates: Tensor, guessed_visits: Tensor) -> dict[str, Any]:
    """What `results.json` says of any run: what was asked, of which data, the rates, and the unlabelled images."""
    asked, problem = facts.asked, facts.problem
    unlabelled = None
    if plan.guesses is not None and problem.unlabelled is not None:
        unlabelled = describe_unlabelled(problem.unlabelled, plan, problem.classes, facts.repeated, guessed_visits)
    return {
        "version": version("homing"),
        "recipe_sha256": asked.recipe_sha256,
        "name": asked.name,
        "method": asked.method,
        "seed": asked.seed,
        "rates": {
            "effective_sample_size": effective_sample_size(rates),
            "phi": plan.phi,
        },
        "unlabelled": unlabelled,
        "data": describe_data(problem.by_role, problem.classes) | {"only_in_target": images_of_own_classes(problem)},
        "dropped": [{"image": item.name, "reason": item.reason} for item in facts.bad],
        "judged": plan.judged,
        "versions": versions(),
    }


def images_of_own_classes(problem: Problem) -> dict[str, int]:
    """Classes that the target alone has, each with the images that it is learned from."""
    counts = Counter(problem.target.labels)
    return {name: counts[name] for name in problem.only_in_target}


def cost(facts: RunFacts, seconds: float, *, source_gradients: int) -> dict[str, Any]:
    """Time, memory, and how often the model was asked."""
    return {
        "seconds": round(seconds, 2),
        "source_gradients": source_gradients,
        "scanned_source_images": facts.scanned_images,
        "peak_rss_mb": peak_rss_mb(),
    }


def warnings_of(facts: RunFacts, main: Outcome) -> list[str]:
    """What the reader must know before the figures."""
    problem, found = facts.problem, [*facts.asked.without_effect, *plan_warnings(facts, main.method.rates)]
    if not problem.is_measured:
        found.append(
            "The target has no labels and there is no data.test: the model was trained on the rated source alone, and"
            " nothing says how well it serves the target. Label some of its images and give them to `homing evaluate`."
        )
    elif problem.test is None:
        folds = facts.asked.folds
        found.append(
            f"There is no data.test: the headline is cross-validated on the target ({folds} folds, everything refitted"
            " in each), so it is of models that saw fewer target images than the one saved."
        )
    return [*found, *_absent_warning(facts), *data_warnings(facts)]


def _absent_warning(facts: RunFacts) -> list[str]:
    """Classes of which the test has no image; the target's own are told with the pools."""
    problem = facts.problem
    absent = absent_classes(judged_labels(problem, facts.labels), problem.classes) if problem.test is not None else []
    return [f"The test has no image of {quoted(absent)}: averages over classes are over the others."] if absent else []


def plan_warnings(facts: RunFacts, plan: RatePlan) -> list[str]:
    """What the rates have to say, of the source and of the target's labels."""
    mixed_up = mixed_up_warnings(plan, facts.problem.source_classes)
    labelled = label_warnings(plan, facts.problem.target, facts.problem.classes)
    return [*plan.warnings, *mixed_up, *labelled, *guess_warnings(plan)]


def data_warnings(facts: RunFacts) -> list[str]:
    """What is odd about the pools."""
    problem, found = facts.problem, []
    if facts.bad:
        found.append(
            f"{len(facts.bad):,} images could not be read and were left out; results.json lists them under dropped."
        )
    labelled = target_warnings(problem) if problem.has_target_labels else []
    if problem.only_in_target:
        labelled += union_warnings(problem.source, problem.target)
    if facts.repeated:
        found.append(repeated_warning(facts.repeated))
    twins = twin_warnings(problem, facts.looks, facts.max_pixels)
    return [*ambiguities(problem.by_role), *found, *labelled, *overlap_warnings(problem), *twins]
