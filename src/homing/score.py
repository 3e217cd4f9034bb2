"""`homing score`: rates for images that a run never saw. Nothing is trained; they go by in batches, none is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homing.features.scan import features_of
from homing.models.inputs import ImageInputs, batches_of
from homing.outputs.artefact import open_whole
from homing.outputs.pool_paths import check_output
from homing.outputs.rates_file import RatesWriter
from homing.outputs.run_folder import pools_of
from homing.outputs.scorer_folder import SavedScorer, open_scorer
from homing.pools.images import BadImage, Images
from homing.pools.pool import Pool
from homing.pools.reading import read_pool
from homing.progress import Progress
from homing.rates.learned.scorer import Scores
from homing.recipe.reading import recipe_of_run
from homing.recipe.schema import PoolSpec

_BATCH = 64


def score(run: Path, data: PoolSpec, output: Path, progress: Progress) -> tuple[list[BadImage], dict[str, Any]]:
    """Rate the images of a pool by the descriptors and φ of a finished run.

    A rate of 1 is that of the average row of the run's own source in the same class.

    Args:
        run: Folder of a run with `rates.method: hierarchical`.
        data: The pool; its classes are matched by name.
        output: Parquet file to write, with the columns of `rates.parquet`; it is there whole or not at all.
        progress: Says how far it is.

    Returns:
        Images that cannot be read (their rate is 0), and `output`, `num_samples`, `mean_rate`, `bad`.

    Raises:
        RecipeError: The output touches a pool.
        DataError: The run holds no scorer, the pool cannot be read, or a class is none of the run's.
    """
    recipe = recipe_of_run(run)
    check_output(output, [data.path, *pools_of(recipe)])
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
        with progress.stage("score", len(pool)) as advance, open_whole(output) as file:
            written = RatesWriter(file)
            for rows, scores, unreadable in _scored(saved, pictures, labels, device):
                written.add(_columns(pool, rows, scores, saved.classes))
                total += float(scores.rates.sum())
                bad += unreadable
                advance(len(rows))
            written.close()
    finally:
        images.close()
    mean = total / max(1, len(pool) - len(bad))
    return bad, {"output": str(output), "num_samples": len(pool), "mean_rate": mean, "bad": len(bad)}


@torch.inference_mode()
def _scored(
    saved: SavedScorer, pictures: ImageInputs, labels: Tensor, device: torch.device
) -> Iterator[tuple[npt.NDArray[np.int64], Scores, list[BadImage]]]:
    """Rows, their scores (NaN likeness and rate 0 where the image cannot be read), and which those are."""
    batches = list(batches_of(np.arange(len(labels)), _BATCH))
    for rows, (images, bad) in zip(batches, pictures.scanning(batches), strict=True):
        good = torch.from_numpy(~np.isin(rows, [item.row for item in bad]))
        own = labels[torch.from_numpy(rows)]
        empty = torch.full((len(rows),), torch.nan)
        scores = Scores(torch.zeros(len(rows)), empty.clone(), empty, own.clone())
        if good.any():
            found = saved.scorer(features_of(saved.model, images, device, saved.precision), own[good])
            scores.rates[good], scores.target_likeness[good] = found.rates, found.target_likeness
            scores.label_consistency[good] = found.label_consistency
            if found.best is not None and scores.best is not None:
                scores.best[good] = found.best
        yield rows, scores, bad


def _columns(pool: Pool, rows: npt.NDArray[np.int64], scores: Scores, classes: tuple[str, ...]) -> dict[str, Any]:
    index = rows.tolist()
    own = [pool.labels[row] for row in index]
    best = own if scores.best is None else [classes[position] for position in scores.best.tolist()]
    return {
        "sample_id": [pool.ids[row] for row in index],
        "source": [pool.sources[row] for row in index],
        "label": own,
        "rate": scores.rates.numpy(),
        "target_likeness": scores.target_likeness.numpy(),
        "label_consistency": scores.label_consistency.numpy(),
        "suggested_label": [name if name != label else None for name, label in zip(best, own, strict=True)],
    }
