"""`homing compare`: is it worth it on these pools? The methods over several seeds, at one budget, paired by image."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from homing.errors import DataError, RecipeError
from homing.evaluation.paired import paired_intervals
from homing.flow import run
from homing.measures import MEASURES, Measure, headline_of
from homing.methods import REFERENCE, title_of
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.comparison_picture import comparison_svg
from homing.outputs.ownership import check_same_pools
from homing.outputs.pool_paths import check_output
from homing.outputs.report.compared import compared_scores, comparison_page
from homing.outputs.report.verdict import verdict
from homing.outputs.run_folder import pools_of
from homing.outputs.run_kinds import lost
from homing.progress import Progress
from homing.recipe.conflicts import conflicts
from homing.recipe.schema import NUM_SEEDS, Recipe
from homing.terminal import counted

_WRITTEN = ("comparison.json", "comparison.csv", "comparison.svg", "comparison.html")


def compare(
    recipe: Recipe,
    methods: Sequence[str],
    num_seeds: int,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a recipe with other methods beside it, once for each seed, and put the results side by side.

    Args:
        recipe: Its own method is always among those compared.
        methods: Baselines; `pooled_oversampled` is the reference that the others are held against.
        num_seeds: Seeds from the recipe's own upwards, at least 1.
        output: A folder for each seed's run, and `comparison` as `.json`, `.csv`, `.svg` and `.html`.
        resume: Go on with what is there.
        overwrite: Replace the runs and the comparison that are there.
        quiet: Say nothing on stderr.

    Returns:
        The content of `comparison.json`.

    Raises:
        RecipeError: There is nothing to compare, or no place for it.
    """
    compared = _seeded(recipe, methods, num_seeds)
    check_output(output, pools_of(recipe))
    _check_replaceable(output, may_replace=resume or overwrite)
    progress, runs = Progress(quiet=quiet), []
    for seeded in compared:
        progress.say(f"seed {seeded.seed}")
        runs.append(run(seeded, output / f"seed-{seeded.seed}", resume=resume, overwrite=overwrite, quiet=quiet))
    check_same_pools([one.folder for one in runs], ("source", "target", "test", "unlabelled"))
    table = side_by_side([result.results for result in runs], [predictions_of(result.folder) for result in runs])
    page = comparison_page(recipe.name, table).encode("utf-8", errors="xmlcharrefreplace")
    write_json(output / _WRITTEN[0], table)  # first: by it the others are known as ours
    for name, content in zip(_WRITTEN[1:], (as_csv(table).encode(), comparison_svg(table).encode(), page), strict=True):
        write_whole(output / name, content)
    return table


def _seeded(recipe: Recipe, methods: Sequence[str], num_seeds: int) -> list[Recipe]:
    """The recipe of each run.

    Raises:
        RecipeError: They cannot be run, or nothing would be measured that could be compared.
    """
    if several := recipe.by_target():
        raise RecipeError(f"data.target names {', '.join(several)}; homing compare takes one target at a time")
    if not recipe.trains:
        raise RecipeError("training.epochs: 0 trains nothing that could be compared; give epochs, or use `homing rate`")
    if recipe.data.target_pool.labels == "none" and recipe.data.test is None:
        raise RecipeError("data.target.labels: none leaves no labelled images to measure on; give a labelled data.test")
    last = recipe.seed + num_seeds - 1
    if last >= NUM_SEEDS:
        raise RecipeError(
            f"--seeds: the last of {num_seeds} seeds would be {last}, and the largest is {NUM_SEEDS - 1}; set seed to"
            f" {NUM_SEEDS - num_seeds} or less"
        )
    evaluation = recipe.evaluation.model_copy(update={"baselines": tuple(methods)})
    compared = recipe.model_copy(update={"evaluation": evaluation})
    if wrong := [message for _, message in conflicts(compared.model_dump())]:
        raise RecipeError("; ".join(wrong))
    return [compared.model_copy(update={"seed": seed}) for seed in range(recipe.seed, last + 1)]


def _check_replaceable(output: Path, *, may_replace: bool) -> None:
    """Whether the files of a comparison can be written.

    Raises:
        RecipeError: One is there that is not to be replaced, or that another program wrote.
    """
    there = [output / name for name in _WRITTEN if (output / name).exists()]
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((output / _WRITTEN[0]).read_text(encoding="utf-8"))
        if may_replace and isinstance(found, dict) and "own_method" in found:
            return
    if there:
        raise RecipeError(
            f"{there[0]}: is there already; give another --output, or go on with a comparison by --resume, or replace"
            " it by --overwrite"
        )


def predictions_of(folder: Path) -> dict[str, Tensor]:
    """Method → logits [M, C] of the judged images, and under `labels` what is right, int64 [M]."""
    path = folder / "predictions.safetensors"
    if not path.exists():
        raise lost(path, folder)
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
    measure, own, seed = headline_of(results[0]), results[0]["method"], results[0]["seed"]
    for name in logits:
        scores = [one["target"] if name == one["method"] else one["baselines"][name] for one in results]
        row: dict[str, Any] = {"method": name, "by_seed": {}}
        for figure in MEASURES:
            values = [score[figure] for score in scores if score.get(figure) is not None]
            if len(values) == len(scores):
                row[figure] = statistics.mean(values)
                row[f"{figure}_sd"] = statistics.stdev(values) if len(values) > 1 else None
                row["by_seed"][figure] = values
        row["accuracies"] = row["by_seed"]["accuracy"]
        row["seconds"] = statistics.mean(one["cost"]["method_seconds"][name] for one in results)
        row["gradients"] = statistics.mean(one["cost"]["method_gradients"][name] for one in results)
        if REFERENCE in logits and name != REFERENCE:
            row["gain"] = paired_intervals(logits[name], logits[REFERENCE], labels, seed=seed)
        if name != own:
            row["gains"] = paired_intervals(logits[own], logits[name], labels, seed=seed)
        rows.append(row)
    rows.sort(key=lambda row: -measure.gain(row[measure.key]))
    return {
        "reference": REFERENCE,
        "own_method": own,
        "metric": measure.key,
        "seeds": [one["seed"] for one in results],
        "num_test": results[0]["target"]["num_test"],
        "methods": rows,
        "versions": results[0]["versions"],
    }


def as_csv(table: dict[str, Any]) -> str:
    """The rows of a comparison as comma-separated text."""
    text = io.StringIO()
    rows = [{**row, **_gain_columns(row.get("gain") or {})} for row in table["methods"]]
    nested = ("gain", "gains", "accuracies", "by_seed")
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in nested]
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _gain_columns(gain: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"gain_{figure}_{end}": value for figure, interval in gain.items() for end, value in interval.items()}


def as_text(table: dict[str, Any]) -> str:
    """The comparison for a terminal, best first, and the verdict."""
    measure, count = headline_of(table), len(table["seeds"])
    others = [one for one in MEASURES.values() if one != measure and one.key in table["methods"][0]]
    head = f"{'':2}{'method':28}{measure.word:>18}" + "".join(
        f"{one.word:>{max(8, len(one.word) + 2)}}" for one in others
    )
    lines = [f"{head}{'seconds':>9}{'gradients':>11}   against “{title_of(table['reference'])}” (95 %)"]
    for row in table["methods"]:
        spread = row[f"{measure.key}_sd"]
        value = measure.write(row[measure.key]) + ("" if spread is None else f" ± {measure.plain(spread)}")
        figures = "".join(f"{one.write(row[one.key]):>{max(8, len(one.word) + 2)}}" for one in others)
        mark = "→ " if row["method"] == table["own_method"] else "  "
        method = f"{mark}{title_of(row['method']):28}{value:>18}{figures}"
        lines.append(f"{method}{row['seconds']:>9.1f}{row['gradients']:>11,.0f}   {_gain(row, measure)}".rstrip())
    found = verdict(compared_scores(table))
    lines += [f"{counted(count, 'seed')}, {counted(table['num_test'], 'image')} each"]
    return "\n".join([*lines, "", f"{found.title}: {found.text}"])


def _gain(row: dict[str, Any], measure: Measure) -> str:
    found = (row.get("gain") or {}).get(measure.key)
    if found is None:
        return ""
    mean, low, high = (measure.difference(found[end]) for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
