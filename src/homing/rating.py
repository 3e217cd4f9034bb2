"""`homing rate`, and `score` of its runs: rates for rows of tables by features that they bring along."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from homing.errors import DataError
from homing.outputs.artefact import open_whole
from homing.outputs.ownership import check_no_part_of_a_run
from homing.outputs.pool_paths import check_output
from homing.outputs.rated_rows import RatedRows, shown_of, write_rated
from homing.outputs.rates_table import table_writer
from homing.outputs.report.pictures import Shown
from homing.outputs.run_folder import check_new_folder, new_folder
from homing.outputs.run_kinds import is_of_rows, results_of
from homing.outputs.scored_rows import scored_columns
from homing.outputs.scorer_file import open_rows_scorer
from homing.pools.class_matching import classes_of_both
from homing.pools.class_names import quoted
from homing.pools.pool import Pool
from homing.pools.reading import read_rows
from homing.pools.tables import Table
from homing.pools.vectors import FILES, Vectors, open_vectors
from homing.progress import Progress
from homing.rates.learned.blocks import ArrayFeatures, check_finite, in_float32
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.judge import FOLDS
from homing.rates.learned.learner import learn_rates
from homing.rates.rates_writer import ROW_GROUP, RatesWriter
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
    check_no_part_of_a_run(output)
    check_new_folder(output, pools, overwrite=overwrite)
    rated = _learned(asked, progress)
    with new_folder(output, pools, rated.digest, overwrite=overwrite):
        return write_rated(output, rated, seconds=time.monotonic() - started)


def score_rows(
    run: Path,
    table: str,
    output: Path,
    progress: Progress,
    *,
    features: str | None = None,
    label: str | None = None,
    id: str | None = None,
) -> dict[str, Any]:
    """Rate rows that a run of `rate_rows` never saw, by the descriptors and φ that it learned.

    Args:
        run: Its folder.
        table: As in `Asked`.
        output: File to write, .parquet or .csv, with the columns of `rates.parquet`; it is there whole or not at all.
        progress: Says how far it is.
        features: As in `Asked`, where they are called otherwise than in the run.
        label: The same.
        id: The same.

    Returns:
        `output`, `num_samples`, `mean_rate`, and `bad`, which is 0.

    Raises:
        RecipeError: The output touches a table.
        DataError: The table or its features cannot be used, or a class is none of the run's.
    """
    asked = _asked_of(run)
    check_output(output, [table, asked.source, asked.target])
    if features is None and asked.features.lower().endswith(FILES):
        raise DataError(
            f"{run}: features of its rows came from {asked.features}; say with --features where those of {table} lie"
        )
    scorer, classes = open_rows_scorer(run / "scorer")
    pool, rows = _rows_of(replace(asked, label=label or asked.label, id=id or asked.id), table)
    labels, vectors = torch.from_numpy(pool.label_indices(classes)), open_vectors(rows, features or asked.features)
    width = len(scorer.likeness) - 1
    if vectors.shape[1] != width:
        raise DataError(
            f"{table}: has features of {vectors.shape[1]:,} numbers, and those of {run} have {width:,}; take the"
            " features of both from one model"
        )
    total = 0.0
    with (
        progress.stage("score", len(pool)) as advance,
        open_whole(output) as file,
        closing(RatesWriter(file, open_table=partial(table_writer, output))) as written,
    ):
        for start in range(0, len(pool), ROW_GROUP):
            block = slice(start, min(start + ROW_GROUP, len(pool)))
            scores = scorer(_finite(vectors, block, table), labels[block])
            written.add(scored_columns(pool, block, scores, labels[block], classes))
            total += float(scores.rates.sum(dtype=torch.float64))
            advance(len(scores.rates))
    return {"output": str(output), "num_samples": len(pool), "mean_rate": total / len(pool), "bad": 0}


def _asked_of(run: Path) -> Asked:
    try:
        return Asked(**results_of(run)["asked"])
    except (TypeError, KeyError) as error:
        raise DataError(f"{run / 'results.json'}: is damaged ({error}); rate the source again") from error


def _finite(vectors: Vectors, rows: slice, table: str) -> torch.Tensor:
    features = in_float32(vectors[rows])
    try:
        check_finite(features, "new", rows.start)
    except DataError as error:
        raise DataError(f"{table}: {error}") from error
    return features


def shown_of_run(run: Path) -> Shown | None:
    """What a report shows of rows that were rated; None where a folder is of something else.

    Raises:
        DataError: The source cannot be read any more.
    """
    if not is_of_rows(run):
        return None
    asked = _asked_of(run)
    return shown_of(*_rows_of(asked, asked.source), asked.text)


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
        target_features=in_float32(open_vectors(others, of_target)[:]),
        target_labels=torch.from_numpy(target.label_indices(classes)),
        num_classes=len(classes),
    )
    with progress.shares("rates") as tell:
        plan = learn_rates(
            evidence, folds=asked.folds, target_weight=asked.target_weight, seed=asked.seed, progress=tell
        )
    return RatedRows(source, table, target, classes, plan, asdict(asked))


def _classes_of(source: Pool, target: Pool) -> tuple[str, ...]:
    try:
        return classes_of_both(source, target)
    except DataError as error:
        more = "; tables have no rename: write the classes of both alike" if "rename" in str(error) else ""
        raise DataError(f"{target.name}: {error}{more}") from error
