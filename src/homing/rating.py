"""`homing rate`: rates for rows of tables by features that they bring along. No picture is scanned, no model built."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from homing.errors import DataError
from homing.outputs.rated_rows import RatedRows, shown_of, write_rated
from homing.outputs.report.pictures import Shown
from homing.outputs.run_folder import check_new_folder, new_folder
from homing.pools.class_matching import classes_of_both
from homing.pools.class_names import quoted
from homing.pools.pool import Pool
from homing.pools.reading import read_rows
from homing.pools.tables import Table
from homing.pools.vectors import open_vectors
from homing.progress import Progress
from homing.rates.learned.blocks import ArrayFeatures
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.judge import FOLDS
from homing.rates.learned.learner import learn_rates
from homing.recipe.data import PoolSpec


@dataclass(frozen=True)
class Asked:
    """What rows are rated, and by what.

    Attributes:
        source: Parquet file, folder of them, or saved dataset, of a row for each sample.
        target: The same of the target.
        features: Column of lists of numbers in both, or a file (.npy, .safetensors) of the source's.
        target_features: The same of the target, where it is called otherwise.
        label: Column of the class in both.
        id: Column of the unique id in both.
        text: Column of the source that the report shows; None: one of the usual names.
        folds: Parts that the target is split into for judging.
        target_weight: How often each target row counts; None: found.
        seed: Of folds and cross-fits.
    """

    source: str
    target: str
    features: str
    label: str = "label"
    id: str = "id"
    target_features: str | None = None
    text: str | None = None
    folds: int = FOLDS
    target_weight: float | None = None
    seed: int = 0


def rate_rows(asked: Asked, output: Path, progress: Progress, *, overwrite: bool = False) -> dict[str, Any]:
    """Learn the rates of a source's rows, and write them with a report.

    Args:
        asked: What is rated, and by what.
        output: Folder to make: `rates.parquet`, `report.html`, `results.json`.
        progress: Says how far it is.
        overwrite: Whether a run in that folder may be replaced.

    Returns:
        What is in `results.json`.

    Raises:
        RecipeError: The output is not free.
        DataError: A table or its features cannot be used.
    """
    started, pools = time.monotonic(), (asked.source, asked.target)
    check_new_folder(output, pools, overwrite=overwrite)
    rated = _learned(asked, progress)
    with new_folder(output, pools, rated.digest, overwrite=overwrite):
        return write_rated(output, rated, seconds=time.monotonic() - started)


def shown_of_run(run: Path) -> Shown | None:
    """What a report shows of rows that were rated; None where a folder is of something else.

    Raises:
        DataError: The source cannot be read any more.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        asked = Asked(**json.loads((run / "results.json").read_text(encoding="utf-8"))["asked"])
        return shown_of(*_rows_of(asked, asked.source), asked.text)
    return None


def _rows_of(asked: Asked, path: str) -> tuple[Pool, Table]:
    return read_rows(PoolSpec(path=path, id_column=asked.id, label_column=asked.label))


def _learned(asked: Asked, progress: Progress) -> RatedRows:
    (source, table), (target, others) = _rows_of(asked, asked.source), _rows_of(asked, asked.target)
    if asked.text is not None and asked.text not in table.names:
        raise DataError(f"{asked.source}: there is no column {asked.text!r} to show; columns: {quoted(table.names)}")
    classes, of_target = _classes_of(source, target), asked.target_features or asked.features
    evidence = Evidence(
        source_features=ArrayFeatures(open_vectors(table, asked.features)),
        source_labels=torch.from_numpy(source.label_indices(classes)),
        target_features=torch.from_numpy(np.array(open_vectors(others, of_target)[:], np.float32)),
        target_labels=torch.from_numpy(target.label_indices(classes)),
        num_classes=len(classes),
    )
    with progress.stage("rates", 1.0) as advance:
        done = 0.0

        def tell(share: float) -> None:
            nonlocal done
            advance(share - done)
            done = share

        plan = learn_rates(
            evidence, folds=asked.folds, target_weight=asked.target_weight, seed=asked.seed, progress=tell
        )
    return RatedRows(source, table, target, classes, plan, asdict(asked))


def _classes_of(source: Pool, target: Pool) -> tuple[str, ...]:
    try:
        return classes_of_both(source, target)
    except DataError as error:
        raise DataError(f"{target.name}: {error}") from error
