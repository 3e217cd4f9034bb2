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

from homing.evaluation.metrics import confusion, metrics, paired_difference, per_class
from homing.memory import peak_rss_mb
from homing.outputs.files import write_json, write_whole
from homing.outputs.model_card import model_card
from homing.outputs.model_folder import save_model
from homing.outputs.rates_file import write_rates
from homing.outputs.report import write_report
from homing.outputs.thumbnails import pictures_of

if TYPE_CHECKING:
    from homing.evaluation.outcome import Outcome
    from homing.pools.problem import Problem
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
        groups=sorted({spec.group_column for spec in bench.recipe.data.sources if spec.group_column}),
        suggested=suggested_labels(main.method.rates.suggested, bench.problem),
        dropped=bench.dropped,
    )
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
    write_report(folder, pictures_of(source))
    for path in (folder / "checkpoints").iterdir():
        if not path.name.startswith("step-"):  # of baselines, folds and rates: they served until the run was complete
            shutil.rmtree(path, ignore_errors=True)
    return results


def predictions(bench: Workbench, outcomes: Sequence[Outcome]) -> dict[str, Tensor]:
    """Logits of each method on the judged rows, and under `labels` what is right."""
    logits = {item.method.name: item.logits.contiguous() for item in outcomes}
    return {**logits, "labels": judged_labels(bench.problem, bench.labels).contiguous()}


def judged_labels(problem: Problem, labels: Tensor) -> Tensor:
    """Labels of the rows that methods are judged by: the test's, or the target's where there is none."""
    return labels[problem.test_rows if problem.test is not None else problem.target_rows]


def collect(bench: Workbench, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The content of `results.json`."""
    problem, recipe, main = bench.problem, bench.recipe, outcomes[0]
    labels = judged_labels(problem, bench.labels)
    scores = {item.method.name: metrics(item.logits, labels) for item in outcomes}
    squares = float(main.fitted.rates.double().square().sum())
    return {
        "version": version("homing"),
        "recipe_sha256": recipe.sha256(),
        "name": recipe.name,
        "method": recipe.rates.method,
        "seed": recipe.seed,
        "headline": "test" if problem.test is not None else "cross_validated",
        "target": scores[main.method.name],
        "rates": {
            "effective_sample_size": float(main.fitted.rates.double().sum()) ** 2 / squares if squares else 0.0,
            "phi": main.method.rates.phi,
        },
        "cost": {
            "seconds": round(seconds, 2),
            "source_gradients": int(main.fitted.visits.sum()),
            "peak_rss_mb": peak_rss_mb(),
            "method_seconds": {item.method.name: round(item.seconds, 2) for item in outcomes},
        },
        "baselines": {
            item.method.name: scores[item.method.name]
            | {"ours_minus_this": paired_difference(main.logits, item.logits, labels, seed=recipe.seed)}
            for item in outcomes[1:]
        },
        "warnings": warnings_of(bench, main),
        "data": describe_data(problem),
        "dropped": [{"image": item.name, "reason": item.reason} for item in bench.bad],
        "per_class": per_class(main.logits, labels, problem.classes),
        "confusion": confusion(main.logits, labels, len(problem.classes)),
        "judged": main.method.rates.judged,
        "versions": versions(),
    }


def warnings_of(bench: Workbench, main: Outcome) -> list[str]:
    """What the reader must know before the figures."""
    problem, found = bench.problem, [*bench.recipe.settings_without_effect(), *main.method.rates.warnings]
    if problem.test is None:
        folds = bench.recipe.evaluation.folds
        found.append(
            f"There is no data.test: the headline is cross-validated on the target ({folds} folds, everything refitted"
            " in each), so it is of models that saw fewer target images than the one saved."
        )
    if bench.bad:
        found.append(
            f"{len(bench.bad):,} images could not be read and were left out; results.json lists them under dropped."
        )
    absent = sorted(set(problem.classes) - set(problem.target.classes))
    if absent:
        found.append(
            f"The target has no image of {len(absent)} of {len(problem.classes)} classes: {', '.join(absent)}."
        )
    return found


def suggested_labels(suggested: Tensor | None, problem: Problem) -> list[str | None] | None:
    """Class names out of positions; None where the label itself fits best."""
    if suggested is None:
        return None
    pairs = zip(suggested.tolist(), problem.labels[: len(problem.source)].tolist(), strict=True)
    return [problem.classes[best] if best != own else None for best, own in pairs]


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
