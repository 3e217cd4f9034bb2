"""`homing predict` and `homing evaluate`: the model of a finished run on other images, prepared as in training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homing.errors import DataError
from homing.evaluation.calibration import scores_at
from homing.evaluation.metrics import confusion, metrics
from homing.evaluation.per_class import per_class
from homing.models.inputs import batches_of
from homing.opening import Habits, Predictor, open_predictor
from homing.outputs.prediction_files import PredictionTable, Row, embeddings_to
from homing.outputs.safe_names import csv_line, safe_cell, safe_path_cell
from homing.pools.images import BadImage, Images, describe_blank
from homing.pools.label_sets import SEPARATOR, sets_in
from homing.pools.pool import ImageStore, Pool
from homing.pools.reading import read_pool
from homing.pools.unlabelled import find_images
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from homing.terminal import counted, in_a_line

Format = Literal["csv", "jsonl", "parquet"]
BATCH = 64
_SHOWN = 20  # bad images in a message


@dataclass(frozen=True)
class Answer:
    """One batch of predictions.

    Attributes:
        rows: Positions of the images that could be read, int64 [B].
        logits: float32 [B, C].
        probabilities: float64 [B, C], at the model's temperature.
        bad: Those that could not.
        blank: Rows that are of one colour.
        seen: What the head sees of them, float32 [B, D], where that was asked for.
    """

    rows: npt.NDArray[np.int64]
    logits: Tensor
    probabilities: Tensor
    bad: list[BadImage]
    blank: list[int]
    seen: Tensor | None = None


def predict(
    run: Path,
    paths: Sequence[Path],
    file: IO[Any],
    form: Format,
    progress: Progress,
    *,
    device: str | None = None,
    batch_size: int = BATCH,
    embeddings: Path | None = None,
    method: str | None = None,
) -> tuple[list[BadImage], int]:
    """Write the probabilities of images, one row an image, in the order in which they are found.

    Args:
        run: Folder of a finished run, or of an exported model.
        paths: Image files, folders of them, parquet files, saved datasets.
        file: Where the rows go; nothing is held back, so that a million images take no more memory than a hundred.
            Of texts; for parquet, of bytes.
        form: csv, jsonl or parquet.
        progress: Says how far it is.
        device: Where to compute; a GPU where there is one.
        batch_size: Images at a time.
        embeddings: File for what the head sees of each image, `.npy` or `.parquet`; none where not given.
        method: Whose model; the one that the run ships where not given.

    Returns:
        The images that cannot be read (they have rows too, with what is wrong in the place of probabilities), and how
        many images there are in all.

    Raises:
        DataError: A path is missing or holds no image, or the run is not finished.
    """
    habits, saved = open_predictor(run, device, method)
    width = saved.width() if embeddings else 0
    store, names, warnings = find_images(paths)
    for text in warnings:
        progress.say(f"warning: {text}")
    bad: list[BadImage] = []
    blank: list[int] = []
    write = _csv_rows if form == "csv" else _json_rows
    table = PredictionTable(file, saved.classes, are_sets=saved.is_multi_label) if form == "parquet" else None
    if form == "csv":
        classes = (safe_cell(f"p({name})") for name in saved.classes)
        file.write(csv_line(["image", "predicted", "probability", "error", *classes]))
    with closing(table) if table else nullcontext(), embeddings_to(embeddings, names, width) as what_is_seen:
        rows, sees = np.arange(len(names)), what_is_seen is not None
        for answer in _answers(habits, saved, store, rows, names, progress, batch_size, sees=sees):
            if table is not None:
                table.add(_in_order(answer, saved), names)
            else:
                file.writelines(write(answer, names, saved))
            if what_is_seen is not None:
                seen = torch.empty(0, width) if answer.seen is None else answer.seen
                what_is_seen.add(answer.rows, seen.numpy(), [item.row for item in answer.bad])
            bad += answer.bad
            blank += answer.blank
    _warn_of_blank(blank, names, progress)
    return bad, len(names)


def evaluate(
    run: Path,
    data: PoolSpec,
    progress: Progress,
    *,
    device: str | None = None,
    batch_size: int = BATCH,
    method: str | None = None,
) -> dict[str, Any]:
    """Measure the model of a run on labelled images.

    Args:
        run: Folder of a finished run, or of an exported model.
        data: Labelled images; their classes are matched by name.
        progress: Says how far it is.
        device: Where to compute; a GPU where there is one.
        batch_size: Images at a time.
        method: Whose model; the one that the run ships where not given.

    Returns:
        The same keys as `target` in `results.json` (of the logits as they are), `calibrated` (temperature, and the loss
        and calibration error that its probabilities have; None for a model without one), `per_class`, `confusion`
        (rows true class, columns predicted; None where an image may be of several), `classes`, `data` (name, size,
        digest) and `dropped`.

    Raises:
        DataError: A class is none of the model's, the pool cannot be read, or one of its images cannot and the recipe
            does not say to drop such.
    """
    habits, saved = open_predictor(run, device, method)
    pool = read_pool(data, sets=saved.is_multi_label)
    labels = torch.from_numpy((sets_in if saved.is_multi_label else Pool.label_indices)(pool, saved.classes))
    parts = list(_answers(habits, saved, pool.store, pool.rows, pool.ids, progress, batch_size))
    bad = [item for answer in parts for item in answer.bad]
    rows = torch.from_numpy(np.concatenate([answer.rows for answer in parts]))
    if bad and (not habits.drops_bad or not len(rows)):
        raise DataError(f"{data.path}: {describe_bad(bad, len(pool))}")
    _warn_of_blank([row for answer in parts for row in answer.blank], pool.ids, progress)
    logits = torch.cat([answer.logits for answer in parts])
    calibrated = None
    if saved.temperature != 1:
        softened = logits.double() / saved.temperature
        calibrated = {"temperature": saved.temperature, **scores_at(softened, labels[rows])}
    return {
        **metrics(logits, labels[rows], seed=habits.seed),
        "calibrated": calibrated,
        "per_class": per_class(logits, labels[rows], saved.classes),
        "confusion": None if saved.is_multi_label else confusion(logits, labels[rows], len(saved.classes)),
        "classes": list(saved.classes),
        "data": {"name": pool.name, "num_samples": len(pool), "digest": pool.digest()},
        "dropped": [{"image": item.name, "reason": item.reason} for item in bad],
    }


def describe_bad(bad: Sequence[BadImage], total: int) -> str:
    """Bad images in a message: how many, and up to 20 by name."""
    lines = [
        f"{len(bad):,} of {counted(total, 'image')} cannot be read",
        *(in_a_line(f"{item.name}: {item.reason}") for item in bad),
    ]
    more = [f"... and {len(bad) - _SHOWN:,} more"] if len(bad) > _SHOWN else []
    return "\n  ".join([*lines[: _SHOWN + 1], *more])


def _answers(
    habits: Habits,
    saved: Predictor,
    store: ImageStore,
    rows: npt.NDArray[np.int64],
    names: Sequence[str],
    progress: Progress,
    batch_size: int = BATCH,
    *,
    sees: bool = False,
) -> Iterator[Answer]:
    images = Images(
        store,
        rows,
        names,
        canvas=saved.preprocessing.canvas,
        interpolation=saved.preprocessing.interpolation,
        max_pixels=habits.max_pixels,
        cache_gb=0.0,
        workers=habits.workers,
    )
    try:
        with progress.stage("predict", len(images)) as advance:
            for loaded in images.loading(batches_of(np.arange(len(images)), batch_size)):
                good = loaded.rows[loaded.good]
                seen, logits = None, torch.empty(0, len(saved.classes))
                if len(good) and sees:
                    seen, logits = saved.embedded(loaded.canvases)
                elif len(good):
                    logits = saved.logits(loaded.canvases)
                yield Answer(good, logits, saved.probabilities(logits), loaded.bad, loaded.blank(), seen)
                advance(len(loaded.rows))
    finally:
        images.close()


def _warn_of_blank(blank: Sequence[int], names: Sequence[str], progress: Progress) -> None:
    if blank:
        progress.say(f"warning: {describe_blank([names[row] for row in blank], len(names))}")


def _in_order(answer: Answer, saved: Predictor) -> Iterator[Row]:
    """Each image of a batch, in the order of the batch."""
    found: dict[int, Row] = {item.row: Row(item.row, [], 0.0, [], item.reason) for item in answer.bad}
    for row, shares in zip(answer.rows.tolist(), answer.probabilities.tolist(), strict=True):
        found[row] = Row(row, *_chosen(shares, saved), shares, "")
    return (found[row] for row in sorted(found))


def _chosen(shares: Sequence[float], saved: Predictor) -> tuple[list[str], float]:
    """What is said of an image, and how probable that is: its class; or its set, were labels independent."""
    if not saved.is_multi_label:
        best = max(range(len(shares)), key=shares.__getitem__)
        return [saved.classes[best]], shares[best]
    names = [name for name, share in zip(saved.classes, shares, strict=True) if share > 0.5]
    return names, math.prod(max(share, 1 - share) for share in shares)


def _csv_rows(answer: Answer, names: Sequence[str], saved: Predictor) -> Iterator[str]:
    for one in _in_order(answer, saved):
        if not one.shares:
            blanks = ("" for _ in saved.classes)
            yield csv_line([safe_path_cell(names[one.row]), "", "", safe_cell(one.reason), *blanks])
        else:
            figures = (f"{share:.6g}" for share in one.shares)
            said = safe_cell(SEPARATOR.join(one.predicted))
            yield csv_line([safe_path_cell(names[one.row]), said, f"{one.probability:.6g}", "", *figures])


def _json_rows(answer: Answer, names: Sequence[str], saved: Predictor) -> Iterator[str]:
    for one in _in_order(answer, saved):
        found: dict[str, Any] = {"image": names[one.row]}
        if not one.shares:
            found |= {"error": one.reason}
        else:
            by_class = {name: float(f"{p:.6g}") for name, p in zip(saved.classes, one.shares, strict=True)}
            predicted = one.predicted if saved.is_multi_label else one.predicted[0]
            found |= {"predicted": predicted, "probability": float(f"{one.probability:.6g}"), "probabilities": by_class}
        yield json.dumps(found) + "\n"
