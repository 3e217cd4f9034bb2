"""The run folder: never overwritten unasked, resumed only with the recipe that it began with."""

from __future__ import annotations

import shutil
from pathlib import Path

from homing.errors import CheckpointError, RecipeError
from homing.outputs.artefact import write_whole
from homing.recipe.schema import Recipe

_OURS = (
    "recipe.yaml",
    "results.json",
    "metrics.jsonl",
    "rates.parquet",
    "report.html",
    "divergence.json",
    "predictions.safetensors",
    "map.parquet",
    "model",
    "scorer",
    "targets.csv",
    "checkpoints",
    "trackers",
)


def check_run_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Whether a run can begin or go on in a folder; nothing is written.

    Raises:
        RecipeError: The folder holds something and neither resume nor overwrite was asked for, or both were.
        CheckpointError: The run in the folder has another recipe.
    """
    if resume and overwrite:
        raise RecipeError("--resume and --overwrite exclude each other: go on, or begin again")
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder}: is a file; give a folder with --output")
    began = folder / "recipe.yaml"
    if resume and began.exists():
        if began.read_bytes() != recipe.to_yaml().encode():
            raise CheckpointError(
                f"{folder}: was begun with another recipe; resume with `homing run {began} --output {folder} --resume`,"
                " or begin again with --overwrite"
            )
    elif folder.exists() and any(folder.iterdir()) and not overwrite:
        raise RecipeError(
            f"{folder}: already holds files; give another --output, go on with --resume, or replace the run in it"
            " with --overwrite"
        )


def open_run_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Make the folder of a run, or check that it can go on there.

    Raises:
        RecipeError: As `check_run_folder`, or the folder cannot be written to.
        CheckpointError: As `check_run_folder`.
    """
    check_run_folder(folder, recipe, resume=resume, overwrite=overwrite)
    began = folder / "recipe.yaml"
    if resume and began.exists():
        return
    try:
        _clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(began, recipe.to_yaml().encode())
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written to ({error.strerror}); give another --output") from error


def discard_stump(folder: Path) -> None:
    """Remove a run folder in which nothing but the recipe was written: the run never got under way."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == ["recipe.yaml"]:
        shutil.rmtree(folder)


def _clear(folder: Path) -> None:
    """Remove what a run leaves, and nothing else."""
    for name in _OURS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
