"""Whose file is it: what homing wrote in a run folder, file by file, so that nothing else is removed or replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from homing.errors import CheckpointError, RecipeError
from homing.methods import METHODS
from homing.outputs.artefact import is_leftover, is_unfinished, made_from, remove_leftovers, write_json
from homing.outputs.checkpoint_files import manifest_in, remove_checkpoint

MARK = ".homing"
LOCK = ".homing.lock"
FEATURES = "features"
"""Folder of a run for features that no cache keeps; what is ours in it carries a mark of its own."""
DIVERGENCE = "divergence.json"
GENERATOR = b'<meta name="generator" content="homing'
"""Stands in every report, near its top."""

_FILES = (
    "recipe.yaml",
    "results.json",
    "metrics.jsonl",
    "rates.parquet",
    "unlabelled.parquet",
    "labels_wanted.csv",
    "report.html",
    DIVERGENCE,
    "predictions.safetensors",
    "folds.safetensors",
    "map.parquet",
    "targets.csv",
    MARK,
)
_MODEL = frozenset({"config.json", "model.safetensors", "README.md"})
_FOLDERS = {
    "model": _MODEL,
    "scorer": frozenset({"backbone.safetensors", "scorer.safetensors", "scorer.json"}),
}
_OWN_FOLDERS = (*_FOLDERS, "models", "checkpoints", "trackers", FEATURES)
_OF_ONE, _OF_SEVERAL = {"recipe_sha256", "rates", "cost"}, {"targets", "metric", "pairs"}  # keys of results
_STEP = re.compile(r"^step-\d{6,}$|^\.step-\d{6,}\..*tmp$")
_EVENTS = re.compile(r"events\.out\.tfevents\.")


def mark_as_ours(folder: Path, recipe_sha256: str) -> None:
    """Note that a folder is a run of ours, before anything else is written to it."""
    write_json(folder / MARK, {"homing": version("homing"), "kind": "run", "recipe_sha256": recipe_sha256})


def note(folder: Path, **facts: Any) -> None:
    """Add to the mark of a folder; what it says of these names is replaced."""
    write_json(folder / MARK, {**marked(folder), **facts})


def note_pools(folder: Path, digests: Mapping[str, str], pictures: Mapping[str, str]) -> None:
    """Add to the mark which pools a run saw.

    Args:
        folder: Of the run.
        digests: Role (source, target, test, unlabelled) → digest of its ids and labels.
        pictures: Role → digest of the bytes of its pictures.
    """
    note(folder, pools=dict(digests), pictures=dict(pictures))


def check_pools(folder: Path, digests: Mapping[str, str]) -> None:
    """Whether the pools are those that the run in a folder saw: a finished part counts for these alone.

    Args:
        folder: Of a run; one that noted no pools (before 0.2) is taken as it is.
        digests: As for `note_pools`.

    Raises:
        CheckpointError: Some are not; says which.
    """
    _check(folder, "pools", digests, "it (rows came, went, moved, got new labels)")


def check_pictures(folder: Path, digests: Mapping[str, str], *, may_change: bool) -> None:
    """Whether the pictures are those that the run in a folder saw, byte by byte; arguments and errors as above.

    Those of a finished run may not change: what it measured is not to stand beside what is measured on others.
    """
    if not may_change or _is_finished(folder):
        _check(folder, "pictures", digests, "it (other pictures stand under the same names)")


def check_same_pools(folders: Sequence[Path], roles: Iterable[str]) -> None:
    """Whether runs that are held against each other saw the same pools, picture by picture.

    Args:
        folders: Of the runs, at least one.
        roles: Of the pools that they have in common.

    Raises:
        CheckpointError: Some saw another; names two runs and the role.
    """
    first, *others = folders
    for what in ("pools", "pictures"):
        ours = marked(first).get(what) or {}
        for folder in others:
            theirs = marked(folder).get(what) or {}
            if changed := [role for role in roles if role in ours and role in theirs and ours[role] != theirs[role]]:
                raise CheckpointError(
                    f"{first}, {folder}: the {' and '.join(changed)} changed between these runs, so they cannot be held"
                    " against each other; remove the one that saw what is no longer there, and --resume runs it again"
                )


def _check(folder: Path, what: str, digests: Mapping[str, str], how: str) -> None:
    noted = marked(folder).get(what)
    known = noted if isinstance(noted, dict) else dict(digests)
    if changed := [role for role in sorted({*known, *digests}) if known.get(role) != digests.get(role)]:
        consent = " go on with `homing run --resume --allow-change` (rates then follow the sample ids),"
        raise CheckpointError(
            f"{folder}: the {' and '.join(changed)} changed since this run saw {how}; put back what it began with,"
            f"{'' if _is_finished(folder) else consent} or begin again with --overwrite or another --output"
        )


def _is_finished(folder: Path) -> bool:
    return (folder / "results.json").is_file()


def marked(folder: Path) -> dict[str, Any]:
    """What the mark of a folder says; nothing where there is none."""
    return _read_object(folder / MARK)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object that lies in a file; an empty one where there is none."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def is_ours(folder: Path) -> bool:
    """Whether a folder is a run of ours: by its mark, or (before 0.2) results or checkpoints that only runs have."""
    marks = [(folder / MARK, {"homing"}), (folder / "results.json", _OF_ONE), (folder / "results.json", _OF_SEVERAL)]
    return any(keys <= _read_object(path).keys() for path, keys in marks) or any(
        _STEP.search(path.name) and manifest_in(path) for path in _listed(folder / "checkpoints")
    )


def is_empty(folder: Path) -> bool:
    """Whether nothing lies in a folder but what a kill left: our mark, a lock, features of a run that never began.

    Of a run that met features that are not finite, this is all as well, and the note of it.
    """
    ours = (MARK, LOCK, DIVERGENCE) if marked(folder).get("homing") else (LOCK,)
    return all(path.name in ours or is_leftover(path) or _is_features(path) for path in folder.iterdir())


def _is_features(path: Path) -> bool:
    """Whether a path is a run's folder of features and nothing but stores lies in it; one may have no mark yet."""
    return (path.name == FEATURES and path.is_dir() and not path.is_symlink()) and all(
        is_unfinished(store)
        or (made_from(store) or {}).get("key") == store.name
        or (store.is_dir() and all(map(is_unfinished, store.iterdir())))
        for store in path.iterdir()
    )


def check_free(folder: Path) -> None:
    """Whether no foreign file stands where a run would write.

    Raises:
        RecipeError: One does; names it.
    """
    foreign = folder / "report.html"
    if foreign.exists() and not is_our_report(foreign):
        raise RecipeError(
            f"{foreign}: was not written by homing, which would replace it; move it or give another --output"
        )
    for name in _FILES:
        if (folder / name).is_dir():
            raise RecipeError(
                f"{folder / name}: is a folder where homing writes a file; move it or give another --output"
            )
    for name in _OWN_FOLDERS:
        if (folder / name).exists() and not (folder / name).is_dir():
            raise RecipeError(f"{folder / name}: is a file, no folder of homing; move it, or give another --output")


def check_no_part_of_a_run(output: Path) -> None:
    """Whether a file or folder that a verb is to write is none that a run keeps in its folder, there or yet to come.

    Raises:
        RecipeError: It is; names the folder.
    """
    place = output.absolute()
    for folder in place.parents:
        inside = place.relative_to(folder)
        if (inside.as_posix() in _FILES or inside.parts[0] in _OWN_FOLDERS) and is_ours(folder):
            raise RecipeError(f"{output}: belongs to the run in {folder}; give a name that is none of its files")


def remove_run(folder: Path) -> None:
    """Remove what a run wrote, and folders that are empty then; everything else stays."""
    remove_leftovers(folder)
    for name in _FILES:
        path = folder / name
        if name != MARK and (path.is_symlink() or path.is_file()):
            path.unlink()
    for path, names in _model_folders(folder):
        if path.is_symlink():
            path.unlink()
            continue
        for name in names if path.is_dir() else ():
            (path / name).unlink(missing_ok=True)
        _remove_if_empty(path)
    _remove_if_empty(folder / "models")
    remove_checkpoints(folder / "checkpoints", keep_newest=False)
    _remove_matching(folder / "trackers", _EVENTS)
    (folder / MARK).unlink(missing_ok=True)  # last: what a kill leaves is still known as ours


def remove_checkpoints(folder: Path, *, keep_newest: bool, kept: Path | None = None) -> None:
    """Remove checkpoints and learned rates, and nothing that was not written as such.

    Args:
        folder: `checkpoints` of a run, or a link to them, which stays; links in it are passed over.
        keep_newest: Leave those that lie in the folder itself, which are the run's own; those of baselines and folds
            lie in folders of their names.
        kept: A folder below whose checkpoints stay; None: there is none.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() or not path.is_dir() or path == kept:
            continue
        if not _is_checkpoint(path):
            remove_checkpoints(path, keep_newest=False, kept=kept)
        elif not keep_newest or is_unfinished(path):
            remove_checkpoint(path)
    _remove_if_empty(folder)


def _is_checkpoint(path: Path) -> bool:
    """By its name: `step-NNNNNN`, or what a kill left of one."""
    return _STEP.search(path.name) is not None or is_unfinished(path)


def _model_folders(folder: Path) -> Iterator[tuple[Path, Iterable[str]]]:
    for name, names in _FOLDERS.items():
        yield folder / name, names
    for path in _listed(folder / "models"):
        if path.name in METHODS:
            yield path, _MODEL


def is_our_report(path: Path) -> bool:
    """Whether a page is a report that homing wrote."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(200_000)
        return GENERATOR in head or b"homing report</title>" in head  # the second: before 0.2
    return False


def _remove_matching(folder: Path, names: re.Pattern[str]) -> None:
    for path in _listed(folder):
        if path.is_dir() and not path.is_symlink():
            _remove_matching(path, names)
        elif names.match(path.name):
            path.unlink()
    _remove_if_empty(folder)


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        with suppress(OSError):
            folder.rmdir()
