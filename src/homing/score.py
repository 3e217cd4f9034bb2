"""`homing score`: rates for images that a run never saw. Nothing is trained; they go by in batches, none is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homing.errors import DataError
from homing.features.scan import features_of
from homing.models.inputs import ImageInputs, batches_of
from homing.outputs.artefact import open_whole
from homing.outputs.pool_paths import check_output
from homing.outputs.rates_table import table_writer
from homing.outputs.run_folder import pools_of
from homing.outputs.run_kinds import check_one_target
from homing.outputs.scored_rows import scored_columns
from homing.outputs.scorer_folder import SavedScorer, open_scorer
from homing.pools.images import BadImage, Images
from homing.pools.reading import read_pool
from homing.progress import Progress
from homing.rates.learned.scorer import Scores
from homing.rates.rates_writer import ROW_GROUP, RatesWriter
from homing.recipe.data import PoolSpec
from homing.recipe.reading import recipe_of_run

_BATCH = 64


def score(run: Path, data: PoolSpec, output: Path, progress: Progress) -> tuple[list[BadImage], dict[str, Any]]:
    """Rate the images of a pool by the descriptors and φ of a finished run.

    A rate of 1 is that of the average row of the run's own source in the same class.

    Args:
        run: Folder of a run with `rates.method: hierarchical`.
        data: The pool; its classes are matched by name.
        output: File to write, .parquet or .csv, with the columns of `rates.parquet`; it is there whole or not at all.
        progress: Says how far it is.

    Returns:
        Images that cannot be read (their rate is 0), and `output`, `num_samples`, `mean_rate`, `bad`.

    Raises:
        RecipeError: The output touches a pool.
        DataError: The run holds no scorer, the pool cannot be read, or a class is none of the run's.
    """
    check_one_target(run)
    recipe = recipe_of_run(run)
    check_output(output, [data.path, *filter(None, [data.root]), *pools_of(recipe)])
    if recipe.is_multi_label:
        raise DataError(
            f"{run}: rates images of several classes (task: multi_label), and such a run cannot rate new ones"
        )
    saved = open_scorer(run / "scorer")
    pool = read_pool(data.model_copy(update={"labels": recipe.data.sources[0].labels}))
    labels = torch.from_numpy(pool.label_indices(saved.classes))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    saved.model.to(device).to(memory_format=torch.channels_last)
    images = Images(
        pool.store,
        pool.rows,
        pool.ids,
        canvas=saved.preprocessing.canvas,
        interpolation=saved.preprocessing.interpolation,
        max_pixels=recipe.data.max_pixels,
        cache_gb=0.0,
        workers=recipe.training.workers,
    )
    pictures = ImageInputs(images, saved.preprocessing, None, seed=0, device=device)
    bad: list[BadImage] = []
    total = 0.0
    try:
        with (
            progress.stage("score", len(pool)) as advance,
            open_whole(output) as file,
            closing(RatesWriter(file, open_table=partial(table_writer, output))) as written,
        ):
            start = 0
            for scores, unreadable in _in_blocks(_scored(saved, pictures, labels, device, advance)):
                stop = start + len(scores.rates)
                written.add(scored_columns(pool, slice(start, stop), scores, labels[start:stop], saved.classes))
                total += float(scores.rates.sum(dtype=torch.float64))
                bad += unreadable
                start = stop
    finally:
        images.close()
    mean = total / max(1, len(pool) - len(bad))
    return bad, {"output": str(output), "num_samples": len(pool), "mean_rate": mean, "bad": len(bad)}


@torch.inference_mode()
def _scored(
    saved: SavedScorer, pictures: ImageInputs, labels: Tensor, device: torch.device, advance: Callable[[int], None]
) -> Iterator[tuple[Scores, list[BadImage]]]:
    """Scores batch by batch (NaN likeness and rate 0 where the image cannot be read), and which images those are."""
    batches = list(batches_of(np.arange(len(labels)), _BATCH))
    for rows, (images, bad) in zip(batches, pictures.scanning(batches), strict=True):
        good = torch.from_numpy(~np.isin(rows, [item.row for item in bad]))
        own = labels[torch.from_numpy(rows)]
        empty = torch.full((len(rows),), torch.nan)
        scores = Scores(torch.zeros(len(rows)), empty.clone(), empty, own.clone())
        if good.any():
            found = saved.scorer(features_of(saved.model, images, device, saved.precision, _BATCH), own[good])
            scores.rates[good], scores.target_likeness[good] = found.rates, found.target_likeness
            scores.label_consistency[good] = found.label_consistency
            if found.best is not None and scores.best is not None:
                scores.best[good] = found.best
        advance(len(rows))
        yield scores, bad


def _in_blocks(batches: Iterator[tuple[Scores, list[BadImage]]]) -> Iterator[tuple[Scores, list[BadImage]]]:
    """The same in row groups of a rates file.

    A group is filled in place: many small tensors among the model's large ones would break the heap into pieces.
    """
    group, bad, count = _empty_group(), list[BadImage](), 0
    for scores, unreadable in batches:
        if count + len(scores.rates) > ROW_GROUP:
            yield _rows(group, slice(count)), bad
            group, bad, count = _empty_group(), [], 0
        place = _rows(group, slice(count, count + len(scores.rates)))
        for into, values in zip(_tensors(place), _tensors(scores), strict=True):
            into.copy_(values)
        bad += unreadable
        count += len(scores.rates)
    if count:
        yield _rows(group, slice(count)), bad


def _empty_group() -> Scores:
    rates, likeness, consistency = torch.empty(3, ROW_GROUP)
    return Scores(rates, likeness, consistency, torch.empty(ROW_GROUP, dtype=torch.int64))


def _tensors(scores: Scores) -> list[Tensor]:
    assert scores.best is not None  # a row of which nothing is known has its own label there
    return [scores.rates, scores.target_likeness, scores.label_consistency, scores.best]


def _rows(scores: Scores, rows: slice) -> Scores:
    """Some rows, sharing memory."""
    rates, likeness, consistency, best = (values[rows] for values in _tensors(scores))
    return Scores(rates, likeness, consistency, best)
