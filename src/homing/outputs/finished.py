"""What a finished run leaves behind, in the order in which it is written: last `results.json`, the mark of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from homing.evaluation.choice import choose
from homing.evaluation.planning import place_of_rates
from homing.methods import METHODS
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.facts import RunFacts
from homing.outputs.feature_map import write_map
from homing.outputs.kept_models import LEFT_OUT, keep_models, left_out_warnings
from homing.outputs.ownership import is_our_report, marked, note, remove_checkpoints
from homing.outputs.rates_file import write_rates
from homing.outputs.report.page import NOT_WRITTEN, write_report
from homing.outputs.report.pictures import Shown
from homing.outputs.results import collect, collect_rates_only, folds_of, predictions
from homing.outputs.run_kinds import OF_ONE_TARGET, results_of
from homing.outputs.scorer_folder import SavedScorer, save_scorer
from homing.outputs.spent import forget_spent
from homing.outputs.thumbnails import shown_of_problem
from homing.outputs.unlabelled_files import write_unlabelled

if TYPE_CHECKING:
    from homing.evaluation.outcome import Outcome
    from homing.rates.learned.plan import RatePlan

RESULTS, REPORT = "results.json", "report.html"


def write_outputs(facts: RunFacts, outcomes: Sequence[Outcome], *, seconds: float) -> dict[str, Any]:
    """Write everything that a run leaves behind, and return what is in `results.json`.

    Args:
        facts: The run.
        outcomes: The run's own method first, then its baselines.
        seconds: Wall time of the run so far.
    """
    main = outcomes[0]
    results = collect(facts, outcomes, seconds)
    descriptors = dict(main.method.rates.descriptors)
    if main.fitted.alignments is not None:
        descriptors["target_alignment"] = main.fitted.alignments
    _write_rates(facts, main.method.rates, main.fitted.rates, descriptors, main.fitted.visits)
    _write_scorer(facts, main.method.rates)
    _write_unlabelled(facts, main.method.rates, main.fitted.guessed)
    results["warnings"] += unless_it_fails("map.parquet", lambda: _write_map(facts))
    return finish(facts, results, outcomes, predictions(facts, outcomes), folds_of(facts, outcomes))


def finish(
    facts: RunFacts,
    results: dict[str, Any],
    outcomes: Sequence[Outcome],
    found: Mapping[str, Tensor],
    folds: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Write what is of all methods together: predictions, models, the report, and last `results.json`.

    Args:
        facts: The run.
        results: The content of `results.json` so far.
        outcomes: Of the methods that were just trained.
        found: Of all methods of the run: method → logits, and `labels`.
        folds: The same by cross-validation on the target, where these choose the model; else empty.
    """
    folder, asked = facts.folder, facts.asked
    if facts.problem.is_measured:
        write_whole(folder / "predictions.safetensors", save_tensors(dict(found)))
    results["models"] = {"shipped": asked.method}
    if folds:
        write_whole(folder / "folds.safetensors", save_tensors(dict(folds)))
        logits = {name: each for name, each in folds.items() if name != "labels"}
        results["models"] = choose(asked.method, logits, folds["labels"], folds=asked.folds, seed=asked.seed)
    trained = {item.method.name: item.fitted.model for item in outcomes}
    results["models"] |= keep_models(facts, trained, results, most_gb=asked.models_gb)
    results["warnings"] = [text for text in results["warnings"] if not text.startswith((LEFT_OUT, NOT_WRITTEN))]
    results["warnings"] += left_out_warnings(folder, results["models"], most_gb=asked.models_gb)
    results["warnings"] += unless_it_fails(REPORT, lambda: _write_report(facts, results))
    plans_by = METHODS[asked.method].plans_by
    rates = place_of_rates(asked.method if plans_by == "learned" else plans_by, facts.problem.target_rows)
    note(folder, rates=rates.as_posix())
    forget_spent(folder)
    write_json(folder / RESULTS, results)
    tidy(folder)
    return results


def tidy(folder: Path) -> None:
    """Remove what served until a run was complete; its own checkpoint and rates stay, since it may be prolonged."""
    checkpoints, rates = folder / "checkpoints", marked(folder).get("rates")
    remove_checkpoints(checkpoints, keep_newest=True, kept=checkpoints / rates if isinstance(rates, str) else None)


def write_rates_only(facts: RunFacts, plan: RatePlan, *, seconds: float) -> dict[str, Any]:
    """What a run leaves behind that stops after the rates: rates, scorer, map, and `results.json`, which is returned.

    The report is made of it when it is asked for: `homing report`.
    """
    _write_rates(facts, plan, plan.rates, plan.descriptors, torch.zeros(len(plan.rates), dtype=torch.int32))
    _write_scorer(facts, plan)
    if plan.guesses is not None:
        _write_unlabelled(facts, plan, torch.zeros_like(plan.guesses.labels))
    results = collect_rates_only(facts, plan, seconds)
    results["warnings"] += unless_it_fails("map.parquet", lambda: _write_map(facts))
    forget_spent(facts.folder)
    write_json(facts.folder / RESULTS, results)
    remove_checkpoints(facts.folder / "checkpoints", keep_newest=False)
    return results


def is_complete(folder: Path) -> bool:
    """Whether a run went through: everything that it is worth was written before its mark."""
    return (folder / RESULTS).is_file()


def read_results(folder: Path) -> dict[str, Any]:
    """What a finished run of one target came to.

    Raises:
        DataError: The file is damaged.
    """
    return results_of(folder, OF_ONE_TARGET)


def write_missing_report(folder: Path, shown: Callable[[], Shown]) -> bool:
    """Write the report of a run that is complete but for it; returns whether it did.

    Args:
        folder: Of a complete run; one that stopped after its rates has a report only where somebody asks for it, one
            over several targets has one for each of them.
        shown: Gives the pictures that it shows, where they are needed.

    Raises:
        DataError: What the report is made of is missing.
    """
    results = read_results(folder)
    if results.get("headline") in (None, "none") or (folder / REPORT).exists():
        return False
    write_report(folder, shown())
    return True


def unless_it_fails(name: str, write: Callable[[], object]) -> list[str]:
    """Write what a run is complete without; where that fails for whatever reason, the warning to give."""
    try:
        write()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        again = "; `homing report` on the run folder tries again" if name == REPORT else ""
        return [f"{name} could not be written ({reason}){again}. Nothing else depends on it."]
    return []


def _write_report(facts: RunFacts, results: dict[str, Any]) -> None:
    """Write the report; where the recipe wants none, one of earlier results is none either."""
    if facts.asked.reports:
        write_report(
            facts.folder, shown_of_problem(facts.problem, show_target=facts.asked.show_target), results=results
        )
    elif is_our_report(facts.folder / REPORT):
        (facts.folder / REPORT).unlink()


def _write_rates(
    facts: RunFacts, plan: RatePlan, rates: Tensor, descriptors: dict[str, Tensor], visits: Tensor
) -> None:
    problem, suggested = facts.problem, None
    if plan.suggested is not None:
        own = torch.from_numpy(problem.source_labels)
        suggested = torch.where(plan.suggested == own, -1, plan.suggested)
    write_rates(
        facts.folder / "rates.parquet",
        problem.source,
        rates,
        descriptors=descriptors,
        visits=visits,
        groups=facts.asked.groups,
        suggested=suggested,
        classes=problem.source_classes,
        dropped=facts.dropped,
    )


def _write_unlabelled(facts: RunFacts, plan: RatePlan, visits: Tensor) -> None:
    """Write what is thought of the unlabelled images, where the method learned from them."""
    pool = facts.problem.unlabelled
    if plan.guesses is not None and pool is not None:
        write_unlabelled(facts.folder, pool, plan, facts.problem.classes, visits)


def _write_scorer(facts: RunFacts, plan: RatePlan) -> None:
    """Save what rates new images, where rates were learned from features."""
    if plan.scorer is not None:
        asked = facts.asked
        saved = SavedScorer(
            facts.model, facts.preprocessing, facts.problem.source_classes, plan.scorer, asked.precision
        )
        save_scorer(
            facts.folder / "scorer",
            saved,
            backbone=asked.backbone,
            image_size=asked.image_size,
            model_args=facts.model_args,
        )


def _write_map(facts: RunFacts) -> None:
    problem = facts.problem
    if facts.features is not None:
        place = facts.folder / "map.parquet"
        write_map(place, problem.source, problem.target, facts.features, seed=facts.asked.seed)
