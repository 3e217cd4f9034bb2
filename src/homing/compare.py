"""`homing compare`: is it worth it on these pools? The methods over several seeds, at one budget, paired by image."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from homing.errors import DataError, RecipeError
from homing.evaluation.paired import paired_intervals
from homing.flow import run
from homing.methods import REFERENCE
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.comparison_picture import comparison_svg
from homing.outputs.pool_paths import check_output
from homing.outputs.run_folder import pools_of
from homing.progress import Progress
from homing.recipe.conflicts import conflicts
from homing.recipe.schema import Recipe
from homing.terminal import counted

FIGURES = ("accuracy", "macro_f1", "nll")


def compare(
    recipe: Recipe, methods: Sequence[str], num_seeds: int, output: Path, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Run a recipe with other methods beside it, once for each seed, and put the results side by side.

    Args:
        recipe: Its own method is always among those compared.
        methods: Baselines; `pooled_oversampled` is the reference that the others are held against.
        num_seeds: Seeds from the recipe's own upwards, at least 1.
        output: A folder for each seed's run, `comparison.json`, `comparison.csv` and `comparison.svg`.
        resume: Go on with what is there.
        quiet: Say nothing on stderr.

    Returns:
        The content of `comparison.json`.
    """
    if several := recipe.by_target():
        raise RecipeError(f"data.target names {', '.join(several)}; homing compare takes one target at a time")
    check_output(output, pools_of(recipe))
    progress, runs = Progress(quiet=quiet), []
    for seed in range(recipe.seed, recipe.seed + num_seeds):
        progress.say(f"seed {seed}")
        evaluation = recipe.evaluation.model_copy(update={"baselines": tuple(methods)})
        seeded = recipe.model_copy(update={"seed": seed, "evaluation": evaluation})
        if wrong := [message for _, message in conflicts(seeded.model_dump())]:
            raise RecipeError("; ".join(wrong))
        runs.append(run(seeded, output / f"seed-{seed}", resume=resume, quiet=quiet))
    table = side_by_side([result.results for result in runs], [predictions_of(result.folder) for result in runs])
    write_json(output / "comparison.json", table)
    write_whole(output / "comparison.csv", as_csv(table).encode())
    write_whole(output / "comparison.svg", comparison_svg(table).encode())
    return table


def predictions_of(folder: Path) -> dict[str, Tensor]:
    """Method → logits [M, C] of the judged images, and under `labels` what is right, int64 [M]."""
    path = folder / "predictions.safetensors"
    try:
        saved = load_file(path)
        saved["labels"]
    except (SafetensorError, OSError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as predictions ({error}); run the recipe again") from error
    return saved


def side_by_side(results: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """One row a method: mean and spread of each figure over seeds, cost, and the paired gain over the reference."""
    logits = {name: torch.stack([each[name] for each in predictions]) for name in predictions[0]}
    rows, labels = [], logits.pop("labels")[0]
    for name in logits:
        scores = [one["target"] if name == one["method"] else one["baselines"][name] for one in results]
        row: dict[str, Any] = {"method": name}
        for figure in FIGURES:
            values = [score[figure] for score in scores]
            row[figure] = statistics.mean(values)
            row[f"{figure}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        row["accuracies"] = [score["accuracy"] for score in scores]
        row["seconds"] = statistics.mean(one["cost"]["method_seconds"][name] for one in results)
        row["gradients"] = statistics.mean(one["cost"]["method_gradients"][name] for one in results)
        if REFERENCE in logits and name != REFERENCE:
            row["gain"] = paired_intervals(logits[name], logits[REFERENCE], labels, seed=results[0]["seed"])
        rows.append(row)
    rows.sort(key=lambda row: -row["accuracy"])
    return {
        "reference": REFERENCE,
        "own_method": results[0]["method"],
        "seeds": [one["seed"] for one in results],
        "num_test": results[0]["target"]["num_test"],
        "methods": rows,
        "versions": results[0]["versions"],
    }


def as_csv(table: dict[str, Any]) -> str:
    """The rows of a comparison as comma-separated text."""
    text = io.StringIO()
    rows = [{**row, **_gain_columns(row.get("gain") or {})} for row in table["methods"]]
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in ("gain", "accuracies")]
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _interval(interval: dict[str, float], figure: str) -> str:
    scale, form = (100, "+.1f") if figure == "accuracy" else (1, "+.3f")
    mean, low, high = (f"{scale * interval[end]:{form}}" for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _gain_columns(gain: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"gain_{figure}_{end}": value for figure, interval in gain.items() for end, value in interval.items()}


def as_text(table: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    count = len(table["seeds"])
    head = f"{'method':22}{'accuracy':>16}{'macro F1':>10}{'NLL':>8}{'seconds':>9}{'gradients':>11}"
    lines = [f"{head}   against {table['reference']} (95 %): accuracy, macro F1, NLL"]
    for row in table["methods"]:
        spread = f" ± {100 * row['accuracy_sd']:.1f}" if row["accuracy_sd"] is not None else ""
        gain = row.get("gain") or {}
        shown = "   ".join(_interval(interval, figure) for figure, interval in gain.items())
        accuracy = f"{100 * row['accuracy']:.1f}{spread}"
        figures = f"{row['macro_f1']:>10.3f}{row['nll']:>8.3f}{row['seconds']:>9.1f}{row['gradients']:>11,.0f}"
        lines.append(f"{row['method']:22}{accuracy:>16}{figures}   {shown}")
    return "\n".join([*lines, f"{counted(count, 'seed')}, {counted(table['num_test'], 'image')} each"])
