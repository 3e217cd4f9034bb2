"""The run folder: never overwritten unasked, never foreign files, resumed only with the recipe that it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from homing.errors import CheckpointError, RecipeError
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.going_on import is_prolonged, why_not
from homing.outputs.lock import folder_lock
from homing.outputs.ownership import (
    DIVERGENCE,
    FEATURES,
    LOCK,
    MARK,
    check_free,
    is_empty,
    is_ours,
    mark_as_ours,
    marked,
    note,
    remove_run,
)
from homing.outputs.pool_paths import check_cache, check_output
from homing.recipe.data import PoolSpec
from homing.recipe.reading import read_recipe
from homing.recipe.schema import Recipe


def pools_of(recipe: Recipe) -> list[str]:
    """Paths of all pools that a recipe names, and of the folders in which their images lie."""
    specs = [spec for single in (recipe.by_target() or {"": recipe}).values() for spec in _specs(single)]
    return [path for spec in specs for path in (spec.path, spec.root) if path is not None]


def check_run_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Whether a run can begin or go on in a folder; nothing is written.

    Raises:
        RecipeError: It touches a pool; or it holds something and neither resume nor overwrite was asked for, or both
            were; or what is to be overwritten is no run of ours, or something foreign stands in its way.
        CheckpointError: The run in the folder has another recipe.
    """
    if resume and overwrite:
        raise RecipeError("--resume and --overwrite exclude each other: go on, or begin again")
    check_cache(recipe.output.cache, pools_of(recipe))
    began = folder / "recipe.yaml"
    if not (resume and began.exists()):
        check_new_folder(folder, pools_of(recipe), overwrite=overwrite, resume=resume)
    else:
        _check_place(folder, pools_of(recipe))
        _check_recipe(folder, began, recipe)
        check_free(folder)


def _check_recipe(folder: Path, began: Path, recipe: Recipe) -> None:
    """Whether a run was begun with a recipe, all defaults included, or may go on with it."""
    try:
        written, before = began.read_bytes(), read_recipe(began)
    except RecipeError as error:
        raise CheckpointError(
            f"{began}: is no recipe of this version ({str(error).splitlines()[-1].strip()}), so the run cannot go on;"
            " put it back as it was, finish the run with what began it, or begin again with --overwrite"
        ) from error
    known = {digest for key in ("recipe_sha256", "next_sha256") if isinstance(digest := marked(folder).get(key), str)}
    as_written, as_read = hashlib.sha256(written).hexdigest(), before.sha256()
    if known and not known & {as_written, as_read}:
        raise CheckpointError(
            f"{began}: was edited since the run was begun with it; put it back as it was, run it anew with"
            f" `homing run {began} --output OTHER`, or begin again with --overwrite"
        )
    # settings or defaults came or went since; what is there does not go on with them
    if as_read not in {*known, as_written} and (before != recipe or not (folder / "results.json").exists()):
        raise CheckpointError(
            f"{folder}: its recipe was written by another version of homing, or by hand; finish the run with what"
            f" began it, run its recipe anew with `homing run {began} --output OTHER`, or begin again with"
            " --overwrite"
        )
    if why := why_not(before, recipe):
        raise CheckpointError(
            f"{folder}: was begun with another recipe ({why}); resume with"
            f" `homing run {began} --output {folder} --resume`, or begin again with --overwrite"
        )


def check_new_folder(
    folder: Path, pools: Iterable[str | Path], *, overwrite: bool = False, resume: bool = False
) -> None:
    """Whether something new can begin in a folder; nothing is written.

    Args:
        folder: Of outputs.
        pools: Paths of the pools that they are made from.
        overwrite: Whether a run of ours may be replaced.
        resume: Whether something was to go on there.

    Raises:
        RecipeError: It touches a pool, or holds something that may not be replaced.
    """
    _check_place(folder, pools)
    if folder.exists() and not is_empty(folder):
        _check_replaceable(folder, overwrite, resume)


def _check_place(folder: Path, pools: Iterable[str | Path]) -> None:
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder}: is a file; give a folder with --output")
    check_output(folder, pools)


def _check_replaceable(folder: Path, overwrite: bool, resume: bool) -> None:
    if resume:
        raise RecipeError(
            f"{folder}: already holds files, and no recipe.yaml that --resume could go on with; put it back, or give"
            " another --output"
        )
    if not overwrite:
        raise RecipeError(
            f"{folder}: already holds files; give another --output, go on with --resume, or replace the run in it"
            " with --overwrite"
        )
    if not is_ours(folder):
        raise RecipeError(
            f"{folder}: holds files, but no run of homing that --overwrite could replace; give another --output"
        )
    check_free(folder)


def open_run_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Make the folder of a run, or check that it can go on there.

    Raises:
        RecipeError: As `check_run_folder`, or the folder cannot be written to.
        CheckpointError: As `check_run_folder`.
    """

    def check() -> None:
        check_run_folder(folder, recipe, resume=resume, overwrite=overwrite)

    check()
    began = folder / "recipe.yaml"
    if resume and began.exists():
        _note_change(folder, began, recipe)
        return
    with _begun(folder, recipe.sha256(), check):
        write_whole(began, recipe.to_yaml().encode())


def _note_change(folder: Path, began: Path, recipe: Recipe) -> None:
    """Write down that a run goes on with more methods, or for longer: then it is not finished any more."""
    before = read_recipe(began)
    if before == recipe:
        return
    if is_prolonged(before, recipe):
        (folder / "results.json").unlink(missing_ok=True)
    note(folder, next_sha256=recipe.sha256())  # a kill may leave either recipe
    write_whole(began, recipe.to_yaml().encode())
    note(folder, recipe_sha256=recipe.sha256())


@contextmanager
def new_folder(folder: Path, pools: Iterable[str | Path], digest: str, *, overwrite: bool) -> Iterator[None]:
    """A folder of ours for something that is written at once, while no other process is at work in it.

    Args:
        folder: Of outputs.
        pools: As for `check_new_folder`.
        digest: sha256 of what was asked for.
        overwrite: As for `check_new_folder`.

    Raises:
        RecipeError: As `check_new_folder`, or the folder cannot be written to.
    """

    def check() -> None:
        check_new_folder(folder, pools, overwrite=overwrite)

    check()
    with _begun(folder, digest, check):
        yield


@contextmanager
def _begun(folder: Path, digest: str, check: Callable[[], None]) -> Iterator[None]:
    """A folder with our mark and nothing of an earlier run; its lock is held."""
    with folder_lock() as lock:
        lock.take(folder, makes=True)
        check()  # once more: another process may have come and gone
        try:
            remove_run(folder)
            mark_as_ours(folder, digest)
        except OSError as error:
            raise RecipeError(f"{folder}: cannot be written to ({error.strerror}); give another --output") from error
        yield


def discard_stump(folder: Path, *, was_there: bool = False) -> None:
    """Remove a run folder in which nothing but the recipe was written: the run never got under way.

    Args:
        folder: Of the run.
        was_there: Whether the folder itself stays, since somebody else made it.
    """
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= {MARK, LOCK, FEATURES, "recipe.yaml"}:
        return
    remove_features(folder)
    for name in ("recipe.yaml", LOCK, MARK):
        (folder / name).unlink(missing_ok=True)
    if not was_there:
        with suppress(OSError):  # something foreign lies in it
            folder.rmdir()


def note_divergence(folder: Path, digest: str, told: Mapping[str, Any], *, is_new: bool) -> None:
    """Write `divergence.json` for a run; its folder is marked as ours where the run had not begun it yet.

    Another run stays as it is: one that was to be replaced and lies there still, one of another process. So does
    everything where the disk refuses: the error itself says what happened.

    Args:
        folder: Of the run.
        digest: Of its recipe.
        told: What happened.
        is_new: Whether the run began now.
    """
    with suppress(OSError, RecipeError), folder_lock() as lock:
        folder.mkdir(parents=True, exist_ok=True)
        lock.take(folder)
        if is_empty(folder):
            mark_as_ours(folder, digest)
        is_replaced = is_new and (folder / "results.json").exists()
        if marked(folder).get("recipe_sha256", digest) == digest and not is_replaced:
            write_json(folder / DIVERGENCE, told)


def remove_features(folder: Path) -> None:
    """Remove the features that a run kept in its own folder, once nothing needs them any more."""
    from homing.features.cache import FeatureCache  # imports torch, which most checks of a folder need not wait for

    FeatureCache(folder / FEATURES, 0).clear()
    with suppress(OSError):
        (folder / FEATURES).rmdir()


def _specs(recipe: Recipe) -> list[PoolSpec]:
    data = recipe.data
    pools = (*data.sources, data.target_pool, data.test_pool, data.unlabelled_pool)
    return [spec for spec in pools if spec is not None]
