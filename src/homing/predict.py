"""`homing predict` and `homing evaluate`: the model of a finished run on other images, prepared as in training."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homing.errors import DataError
from homing.evaluation.metrics import confusion, metrics, per_class
from homing.models.inputs import batches_of
from homing.models.saved import SavedModel, open_model
from homing.outputs.kept_models import model_of
from homing.outputs.safe_names import safe_cell, safe_path_cell
from homing.pools.images import BadImage, Images, describe_blank
from homing.pools.pool import ImageStore
from homing.pools.reading import read_pool
from homing.pools.unlabelled import find_images
from homing.progress import Progress
from homing.recipe.reading import recipe_of_run
from homing.recipe.schema import PoolSpec, Recipe
from homing.terminal import in_a_line

Format = Literal["csv", "jsonl"]
_BATCH = 64
_SHOWN = 20  # bad images in a message


@dataclass(frozen=True)
class Answer:
    """One batch of predictions.

    Attributes:
        rows: Positions of the images that could be read, int64 [B].
        logits: float32 [B, C].
        bad: Those that could not.
        blank: Rows that are of one colour.
    """

    rows: npt.NDArray[np.int64]
    logits: Tensor
    bad: list[BadImage]
    blank: list[int]


def open_run(run: Path, method: str | None = None) -> tuple[Recipe, SavedModel]:
    """The recipe and the model of a finished run: the one that it ships, or the one that a method trained.

    Raises:
        DataError: The run is not finished or damaged.
        RecipeError: It keeps no model of that method.
    """
    recipe = recipe_of_run(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return recipe, open_model(model_of(run, method), device=device, precision=recipe.training.precision)


def predict(
    run: Path, paths: Sequence[Path], file: IO[str], form: Format, progress: Progress, *, method: str | None = None
) -> tuple[list[BadImage], int]:
    """Write the probabilities of images, one row an image, in the order in which they are found.

    Args:
        run: Folder of a finished run.
        paths: Image files, folders of them, parquet files, saved datasets.
        file: Where the rows go; nothing is held back, so that a million images take no more memory than a hundred.
        form: csv or jsonl.
        progress: Says how far it is.
        method: Whose model; the one that the run ships where not given.

    Returns:
        The images that cannot be read (they have rows too, with what is wrong in the place of probabilities), and how
        many images there are in all.

    Raises:
        DataError: A path is missing or holds no image, or the run is not finished.
    """
    recipe, saved = open_run(run, method)
    store, names, warnings = find_images(paths)
    for text in warnings:
        progress.say(f"warning: {text}")
    bad: list[BadImage] = []
    blank: list[int] = []
    write = _csv_rows if form == "csv" else _json_rows
    if form == "csv":
        file.write(_csv_line(["image", "predicted", "probability", "error", *(f"p({name})" for name in saved.classes)]))
    for answer in _answers(recipe, saved, store, np.arange(len(names)), names, progress):
        file.writelines(write(answer, names, saved.classes))
        bad += answer.bad
        blank += answer.blank
    _warn_of_blank(blank, names, progress)
    return bad, len(names)


def evaluate(run: Path, data: PoolSpec, progress: Progress, *, method: str | None = None) -> dict[str, Any]:
    """Measure the model of a run on labelled images.

    Args:
        run: Folder of a finished run.
        data: Labelled images; their classes are matched by name.
        progress: Says how far it is.
        method: Whose model; the one that the run ships where not given.

    Returns:
        The same keys as `target` in `results.json`, and `per_class`, `confusion` (rows true class, columns predicted),
        `classes`, `data` (name, size, digest) and `dropped`.

    Raises:
        DataError: A class is none of the model's, the pool cannot be read, or one of its images cannot and the recipe
            does not say to drop such.
    """
    recipe, saved = open_run(run, method)
    pool = read_pool(data)
    labels = torch.from_numpy(pool.label_indices(saved.classes))
    parts = list(_answers(recipe, saved, pool.store, pool.rows, pool.ids, progress))
    bad = [item for answer in parts for item in answer.bad]
    rows = torch.from_numpy(np.concatenate([answer.rows for answer in parts]))
    if bad and (recipe.data.on_bad_image == "error" or not len(rows)):
        raise DataError(f"{data.path}: {describe_bad(bad, len(pool))}")
    _warn_of_blank([row for answer in parts for row in answer.blank], pool.ids, progress)
    logits = torch.cat([answer.logits for answer in parts])
    return {
        **metrics(logits, labels[rows]),
        "per_class": per_class(logits, labels[rows], saved.classes),
        "confusion": confusion(logits, labels[rows], len(saved.classes)),
        "classes": list(saved.classes),
        "data": {"name": pool.name, "num_samples": len(pool), "digest": pool.digest()},
        "dropped": [{"image": item.name, "reason": item.reason} for item in bad],
    }


def describe_bad(bad: Sequence[BadImage], total: int) -> str:
    """Bad images in a message: how many, and up to 20 by name."""
    lines = [
        f"{len(bad):,} of {total:,} images cannot be read",
        *(in_a_line(f"{item.name}: {item.reason}") for item in bad),
    ]
    more = [f"... and {len(bad) - _SHOWN:,} more"] if len(bad) > _SHOWN else []
    return "\n  ".join([*lines[: _SHOWN + 1], *more])


def _answers(
    recipe: Recipe,
    saved: SavedModel,
    store: ImageStore,
    rows: npt.NDArray[np.int64],
    names: Sequence[str],
    progress: Progress,
) -> Iterator[Answer]:
    images = Images(
        store,
        rows,
        names,
        canvas=saved.preprocessing.canvas,
        interpolation=saved.preprocessing.interpolation,
        max_pixels=recipe.data.max_pixels,
        cache_gb=0.0,
        workers=recipe.training.workers,
    )
    try:
        with progress.stage("predict", len(images)) as advance:
            for loaded in images.loading(batches_of(np.arange(len(images)), _BATCH)):
                good = loaded.rows[loaded.good]
                empty = torch.empty(0, len(saved.classes))
                logits = saved.logits(loaded.canvases) if len(good) else empty
                yield Answer(good, logits, loaded.bad, loaded.blank())
                advance(len(loaded.rows))
    finally:
        images.close()


def _warn_of_blank(blank: Sequence[int], names: Sequence[str], progress: Progress) -> None:
    if blank:
        progress.say(f"warning: {describe_blank([names[row] for row in blank], len(names))}")


def _in_order(answer: Answer) -> Iterator[tuple[int, list[float] | None, str]]:
    """(row, probabilities or None, what is wrong) of each image of a batch, in the order of the batch."""
    found: dict[int, tuple[list[float] | None, str]] = {item.row: (None, item.reason) for item in answer.bad}
    for row, shares in zip(answer.rows.tolist(), answer.logits.double().softmax(1).tolist(), strict=True):
        found[row] = (shares, "")
    return ((row, *found[row]) for row in sorted(found))


def _csv_rows(answer: Answer, names: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    for row, shares, reason in _in_order(answer):
        if shares is None:
            yield _csv_line([safe_path_cell(names[row]), "", "", safe_cell(reason), *("" for _ in classes)])
        else:
            best = max(range(len(shares)), key=shares.__getitem__)
            figures = (f"{share:.6g}" for share in shares)
            answered = (safe_path_cell(names[row]), safe_cell(classes[best]), f"{shares[best]:.6g}", "")
            yield _csv_line([*answered, *figures])


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _json_rows(answer: Answer, names: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    for row, shares, reason in _in_order(answer):
        found: dict[str, Any] = {"image": names[row]}
        if shares is None:
            found |= {"error": reason}
        else:
            best = max(range(len(shares)), key=shares.__getitem__)
            by_class = {name: float(f"{p:.6g}") for name, p in zip(classes, shares, strict=True)}
            found |= {"predicted": classes[best], "probability": by_class[classes[best]], "probabilities": by_class}
        yield json.dumps(found) + "\n"
