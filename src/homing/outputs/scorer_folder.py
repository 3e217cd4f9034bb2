"""`scorer/`: all that is needed to rate images that a run never saw. safetensors and JSON, no pickle.

`scorer.safetensors` holds the fitted descriptors and φ, `backbone.safetensors` the backbone of the scan without its
head, `scorer.json` how pictures become inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from homing.errors import DataError
from homing.features.cache import backbone_digest
from homing.models.backbone import Preprocessing, architecture_of, build_model
from homing.models.parts import classifiers_of
from homing.models.structure import structure_digest
from homing.outputs.artefact import folder_whole, write_json
from homing.outputs.scorer_file import read_scorer, write_scorer
from homing.rates.learned.scorer import Scorer

FORMAT = 1


@dataclass(frozen=True)
class SavedScorer:
    """A scorer with the backbone that its features come from.

    Attributes:
        model: In evaluation mode, on the CPU; its head means nothing.
        preprocessing: From canvas to input.
        classes: Of the run, in the order of labels.
        scorer: From features to rates.
        precision: fp32 or bf16.
    """

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    scorer: Scorer
    precision: str


def save_scorer(
    folder: Path,
    saved: SavedScorer,
    *,
    backbone: str,
    image_size: int | None,
    model_args: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder, whole or not at all; files of other names in it stay."""
    head = {id(value) for part in classifiers_of(saved.model) for value in part.state_dict(keep_vars=True).values()}
    state = saved.model.state_dict(keep_vars=True)
    body = {name: _plain(value) for name, value in state.items() if id(value) not in head}
    about = {
        "format": FORMAT,
        "backbone": architecture_of(saved.model, backbone),
        "image_size": image_size,
        "model_args": dict(model_args or {}),
        "backbone_digest": backbone_digest(saved.model),
        "structure": _structure(saved.model),
        "preprocessing": asdict(saved.preprocessing),
        "precision": saved.precision,
        "classes": list(saved.classes),
    }
    with folder_whole(folder, into_existing=True) as unfinished:
        (unfinished / "backbone.safetensors").write_bytes(save_tensors(body))
        write_scorer(unfinished, saved.scorer)
        write_json(unfinished / "scorer.json", about)


def open_scorer(folder: Path) -> SavedScorer:
    """Read what `save_scorer` wrote.

    Raises:
        DataError: It is missing, damaged, or of another version.
    """
    path = folder / "scorer.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise DataError(
                f"{path}: has format {about['format']!r}, this version reads {FORMAT}; run the recipe again"
            )
        preprocessing = _preprocessing(about["preprocessing"])
        model, _, _ = build_model(
            about["backbone"],
            "none",
            num_classes=len(about["classes"]),
            image_size=about["image_size"],
            seed=0,
            model_args=about.get("model_args"),
        )
        model.load_state_dict(load_file(folder / "backbone.safetensors"), strict=False)
        if backbone_digest(model) != about["backbone_digest"] or _is_of_another_structure(model, about):
            raise DataError(f"{folder}: the backbone is not the one that was saved; run the recipe again")
        scorer = read_scorer(folder)
        classes, precision = tuple(map(str, about["classes"])), str(about["precision"])
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or folder}: no such file; only runs with rates.method: hierarchical can rate new images,"
            " and only when they are complete"
        ) from error
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: is damaged ({str(error).splitlines()[0]}); run the recipe again") from error
    return SavedScorer(model.eval(), preprocessing, classes, scorer, precision)


def _structure(model: nn.Module) -> dict[str, str]:
    """Its digest, and the releases for which it holds."""
    return {"digest": structure_digest(model), "timm": version("timm"), "torch": version("torch")}


def _is_of_another_structure(model: nn.Module, about: Mapping[str, Any]) -> bool:
    """Whether a model computes otherwise than what was saved, as far as that was noted by the same libraries."""
    if "structure" not in about:  # an earlier version noted none
        return False
    saved, ours = about["structure"], _structure(model)
    return saved["digest"] != ours["digest"] and all(saved[name] == ours[name] for name in ("timm", "torch"))


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
