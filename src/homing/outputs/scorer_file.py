"""A fitted scorer on disk, `scorer.safetensors`; and alone, with its classes, where rows bring their features along."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors

from homing.errors import DataError
from homing.outputs.artefact import folder_whole, write_json
from homing.rates.learned.scorer import Scorer

_FORMAT = 1


def write_scorer(folder: Path, scorer: Scorer) -> None:
    """Write `scorer.safetensors` into a folder."""
    tensors = {name: value.contiguous() for name, value in scorer.tensors().items()}
    (folder / "scorer.safetensors").write_bytes(save_tensors(tensors))


def read_scorer(folder: Path) -> Scorer:
    """Read what `write_scorer` wrote; raises the errors of safetensors, and KeyError where a tensor is missing."""
    return Scorer.from_tensors(load_file(folder / "scorer.safetensors"))


def save_rows_scorer(folder: Path, scorer: Scorer, classes: tuple[str, ...]) -> None:
    """Write the scorer of rows that bring their features along, whole or not at all."""
    with folder_whole(folder) as unfinished:
        write_scorer(unfinished, scorer)
        write_json(unfinished / "scorer.json", {"format": _FORMAT, "features": "brought", "classes": list(classes)})


def open_rows_scorer(folder: Path) -> tuple[Scorer, tuple[str, ...]]:
    """Read what `save_rows_scorer` wrote: the scorer, and its classes in the order of labels.

    Raises:
        DataError: It is missing, damaged, or of another version.
    """
    path = folder / "scorer.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found = about["format"]
        scorer, classes = read_scorer(folder), tuple(map(str, about["classes"]))
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or folder}: no such file: these rates are of a version that kept nothing to rate new rows"
            " by; rate the source again (`homing rate --overwrite`)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: is damaged ({str(error).splitlines()[0]}); rate the source again") from error
    if found != _FORMAT:
        raise DataError(f"{path}: has format {found!r}, this version reads {_FORMAT}; rate the source again")
    return scorer, classes
