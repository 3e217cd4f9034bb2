"""From the outcomes of a run to its folder: results, rates, model, report."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from homing.evaluation.metrics import confusion, metrics, per_class
from homing.evaluation.paired import Interval, paired_intervals
from homing.memory import peak_rss_mb
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.feature_map import write_map
from homing.outputs.model_card import model_card
from homing.outputs.model_folder import save_model
from homing.outputs.pool_warnings import label_warnings, mixed_up_warnings, overlap_warnings, target_warnings
from homing.outputs.rates_file import write_rates
from homing.outputs.report.page import write_report
from homing.outputs.scorer_folder import SavedScorer, save_scorer
from homing.outputs.thumbnails import pictures_of
from homing.rates.learned.plan import effective_sample_size

if TYPE_CHECKING:
    from homing.evaluation.outcome import Outcome
    from homing.pools.problem import Problem
    from homing.rates.learned.plan import RatePlan
    from homing.training.workbench import Workbench

_LIBRARIES = ("torch", "timm", "datasets", "accelerate", "scikit-learn")


def write_outputs(bench: Workbench, outcomes: Sequence[Outcome], *, seconds: float) -> dict[str, Any]:
    """Write everything that a run leaves behind, and return what is in `results.json`.

    Args:
        bench: What the methods shared.
        outcomes: The run's own method first, then its baselines.
        seconds: Wall time of the run so far.
    """
    folder, main = bench.folder, outcomes[0]
    results = collect(bench, outcomes, seconds)
    source = bench.problem.source
    descriptors = dict(main.method.rates.descriptors)
    if main.fitted.alignments is not None:
        descriptors["target_alignment"] = main.fitted.alignments
    write_rates(
        folder / "rates.parquet",
        source,
        main.fitted.rates,
        descriptors=descriptors,
        visits=main.fitted.visits,
        groups=groups_of(bench),
        suggested=suggested_labels(main.method.rates.suggested, bench.problem),
        dropped=bench.dropped,
    )
    keep_scorer(bench, main.method.rates)
    if bench.problem.is_measured:
        write_whole(folder / "predictions.safetensors", save_tensors(predictions(bench, outcomes)))
    save_model(
        folder / "model",
        main.fitted.model.cpu().to(memory_format=torch.contiguous_format),
        classes=bench.problem.classes,
        model_args=bench.model_args,
        data_config=bench.preprocessing.data_config(),
        card=model_card(results, bench.recipe),
    )
    write_json(folder / "results.json", results)
    _write_map(bench)
    write_report(folder, pictures_of(source))
    for path in (folder / "checkpoints").iterdir():
        if not path.name.startswith("step-"):  # of baselines, folds and rates: they served until the run was complete
            shutil.rmtree(path, ignore_errors=True)
    return results


def write_rates_only(bench: Workbench, plan: RatePlan, *, seconds: float) -> dict[str, Any]:
    """What a run leaves behind that stops after the rates: rates, map, and `results.json`, which is returned."""
    folder, count = bench.folder, len(bench.problem.source)
    write_rates(
        folder / "rates.parquet",
        bench.problem.source,
        plan.rates,
        descriptors=plan.descriptors,
        visits=torch.zeros(count, dtype=torch.int64),
        groups=groups_of(bench),
        suggested=suggested_labels(plan.suggested, bench.problem),
        dropped=bench.dropped,
    )
    keep_scorer(bench, plan)
    results = described(bench, plan, plan.rates) | {
        "headline": "none",
        "target": None,
        "cost": cost(bench, seconds, source_gradients=0),
        "baselines": {},
        "warnings": [*bench.recipe.settings_without_effect(), *plan_warnings(bench, plan), *data_warnings(bench)],
    }
    write_json(folder / "results.json", results)
    _write_map(bench)  # the report is made of it when it is asked for: `homing report`
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the rates served until the run was complete
    return results


def _write_map(bench: Workbench) -> None:
    """The map of the features, where something needed them."""
    place, problem = bench.folder / "map.parquet", bench.problem
    if bench.scanned is not None:
        write_map(place, problem.source, problem.target, bench.scanned, seed=bench.recipe.seed)


def keep_scorer(bench: Workbench, plan: RatePlan) -> None:
    """Save what rates new images, where rates were learned from features."""
    if plan.scorer is not None:
        recipe, classes = bench.recipe, bench.problem.source_classes
        saved = SavedScorer(bench.model, bench.preprocessing, classes, plan.scorer, recipe.training.precision)
        place, model = bench.folder / "scorer", recipe.model
        save_scorer(place, saved, backbone=model.backbone, image_size=model.image_size)


def groups_of(bench: Workbench) -> list[str]:
    """Columns of the source by which rates are also reported."""
    return sorted({spec.group_column for spec in bench.recipe.data.sources if spec.group_column})


def predictions(bench: Workbench, outcomes: Sequence[Outcome]) -> dict[str, Tensor]:
    """Logits of each method on the judged rows, and under `labels` what is right."""
    logits = {item.method.name: item.logits.contiguous() for item in outcomes if item.logits is not None}
    return {**logits, "labels": judged_labels(bench.problem, bench.labels).contiguous()}


def judged_labels(problem: Problem, labels: Tensor) -> Tensor:
    """Labels of the rows that methods are judged by: the test's, or the target's where there is none."""
    return labels[problem.test_rows if problem.test is not None else problem.target_rows]


def collect(bench: Workbench, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The content of `results.json`."""
    main = outcomes[0]
    gradients = int(main.fitted.visits.sum())
    return described(bench, main.method.rates, main.fitted.rates) | {
        "headline": "unmeasured",
        "target": None,
        "cost": cost(bench, seconds, source_gradients=gradients)
        | {
            "method_seconds": {item.method.name: round(item.seconds, 2) for item in outcomes},
            "method_gradients": {item.method.name: item.fitted.gradients for item in outcomes},
        },
        "baselines": {},
        "warnings": warnings_of(bench, main),
        **_figures(bench, outcomes),
    }


def _figures(bench: Workbench, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was measured on labelled images of the target's domain; nothing where there are none."""
    problem = bench.problem
    labels, found = judged_labels(problem, bench.labels), predictions(bench, outcomes)
    if not problem.is_measured:
        return {}
    scores = {item.method.name: metrics(found[item.method.name], labels) for item in outcomes}
    own, *others = (item.method.name for item in outcomes)
    return {
        "headline": "test" if problem.test is not None else "cross_validated",
        "target": scores[own],
        "baselines": {
            name: scores[name] | {"ours_minus_this": _gain(found[own], found[name], labels, bench.recipe.seed)}
            for name in others
        },
        "per_class": per_class(found[own], labels, problem.classes),
        "confusion": confusion(found[own], labels, len(problem.classes)),
    }


def _gain(ours: Tensor, theirs: Tensor, labels: Tensor, seed: int) -> Interval:
    return paired_intervals(ours[None], theirs[None], labels, seed=seed)["accuracy"]


def described(bench: Workbench, plan: RatePlan, rates: Tensor) -> dict[str, Any]:
    """What `results.json` says of any run: what was asked, of which data, and the rates."""
    recipe = bench.recipe
    return {
        "version": version("homing"),
        "recipe_sha256": recipe.sha256(),
        "name": recipe.name,
        "method": recipe.rates.method,
        "seed": recipe.seed,
        "rates": {
            "effective_sample_size": effective_sample_size(rates),
            "phi": plan.phi,
        },
        "data": describe_data(bench.problem),
        "dropped": [{"image": item.name, "reason": item.reason} for item in bench.bad],
        "judged": plan.judged,
        "versions": versions(),
    }


def cost(bench: Workbench, seconds: float, *, source_gradients: int) -> dict[str, Any]:
    """Time, memory, and how often the model was asked."""
    return {
        "seconds": round(seconds, 2),
        "source_gradients": source_gradients,
        "scanned_source_images": bench.source_features.num_passed,
        "peak_rss_mb": peak_rss_mb(),
    }


def warnings_of(bench: Workbench, main: Outcome) -> list[str]:
    """What the reader must know before the figures."""
    problem, found = bench.problem, [*bench.recipe.settings_without_effect(), *plan_warnings(bench, main.method.rates)]
    if not problem.is_measured:
        found.append(
            "The target has no labels and there is no data.test: the model was trained on the rated source alone, and"
            " nothing says how well it serves the target. Label some of its images and give them to `homing evaluate`."
        )
    elif problem.test is None:
        folds = bench.recipe.evaluation.folds
        found.append(
            f"There is no data.test: the headline is cross-validated on the target ({folds} folds, everything refitted"
            " in each), so it is of models that saw fewer target images than the one saved."
        )
    return found + data_warnings(bench)


def plan_warnings(bench: Workbench, plan: RatePlan) -> list[str]:
    """What the rates have to say, of the source and of the target's labels."""
    mixed_up = mixed_up_warnings(plan, bench.problem.source_classes)
    return [*plan.warnings, *mixed_up, *label_warnings(plan, bench.problem)]


def data_warnings(bench: Workbench) -> list[str]:
    """What is odd about the pools."""
    problem, found = bench.problem, []
    if bench.bad:
        found.append(
            f"{len(bench.bad):,} images could not be read and were left out; results.json lists them under dropped."
        )
    labelled = target_warnings(problem) if problem.has_target_labels else []
    return [*found, *labelled, *overlap_warnings(problem)]


def suggested_labels(suggested: Tensor | None, problem: Problem) -> list[str | None] | None:
    """Class names out of positions; None where the label itself fits best."""
    if suggested is None:
        return None
    pairs = zip(suggested.tolist(), problem.source_labels.tolist(), strict=True)
    return [problem.source_classes[best] if best != own else None for best, own in pairs]


def describe_data(problem: Problem) -> dict[str, Any]:
    """Sizes and digests of the pools, and the classes in the order of the model's outputs."""
    roles = dict(zip(("source", "target", "test"), problem.pools, strict=False))
    described: dict[str, Any] = {
        role: {"name": pool.name, "num_samples": len(pool), "digest": pool.digest()} for role, pool in roles.items()
    }
    return {"test": None, **described, "classes": list(problem.classes)}


def versions() -> dict[str, str]:
    """What ran, and on what."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
    return {**found, "platform": platform.platform(), "threads": str(torch.get_num_threads())}
