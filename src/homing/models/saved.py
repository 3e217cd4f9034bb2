"""A model folder that a run left behind, opened again: the model, its preprocessing, its classes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from homing.errors import DataError
from homing.models.backbone import Preprocessing, preprocessing_of
from homing.models.parts import autocast
from homing.pools.images import Canvases

MULTI_LABEL = "multi_label_classification"
"""`problem_type` in the configuration of a model whose images may be of several classes, as Hugging Face calls it."""


@dataclass(frozen=True)
class SavedModel:
    """A fine-tuned model as it lies in a run folder.

    Attributes:
        model: In evaluation mode, on `device`.
        preprocessing: The same as in training.
        classes: Names of its outputs, in their order.
        device: Where it computes.
        precision: fp32 or bf16, as in training.
        temperature: What logits are divided by before they become probabilities; 1 where none was fitted.
        is_multi_label: Whether an image may be of several of the classes.
    """

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    device: torch.device
    precision: str = "fp32"
    temperature: float = 1.0
    is_multi_label: bool = False

    @torch.inference_mode()
    def logits(self, canvases: Canvases) -> Tensor:
        """Logits of decoded pictures: uint8 [B, canvas, canvas, 3] → float32 [B, C] on the CPU."""
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(self.inputs(canvases))
        return logits.float().cpu()

    def width(self) -> int:
        """Numbers that the head sees of an image; `num_features` of timm says another number for some models."""
        side = self.preprocessing.canvas
        return int(self.embedded(np.zeros((1, side, side, 3), np.uint8))[0].shape[1])

    @torch.inference_mode()
    def embedded(self, canvases: Canvases) -> tuple[Tensor, Tensor]:
        """What the head sees of decoded pictures, float32 [B, D], and their logits, float32 [B, C]; on the CPU."""
        network: Any = self.model
        with autocast(self.device, self.precision):
            features = network.forward_features(self.inputs(canvases))
            seen, logits = network.forward_head(features, pre_logits=True), network.forward_head(features)
        return seen.float().cpu(), logits.float().cpu()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits [B, C]: float64 [B, C], at the model's temperature."""
        return probabilities_of(logits, self.temperature, is_multi_label=self.is_multi_label)

    def inputs(self, canvases: Canvases) -> Tensor:
        """What the model is fed: uint8 [B, canvas, canvas, 3] → float32 [B, 3, size, size], channels last."""
        images = torch.from_numpy(canvases).to(self.device).permute(0, 3, 1, 2)
        return self.preprocessing.normalize(self.preprocessing.center(images).float() / 255)


def probabilities_of(logits: Tensor, temperature: float, *, is_multi_label: bool) -> Tensor:
    """Of logits [B, C] at a temperature: float64 [B, C]; they add up to 1 where an image is of one class."""
    scaled = logits.double() / temperature
    return scaled.sigmoid() if is_multi_label else scaled.softmax(1)


def open_model(folder: Path, *, device: torch.device | None = None, precision: str = "fp32") -> SavedModel:
    """Open the model folder of a run.

    Args:
        folder: Holds `config.json` and `model.safetensors`.
        device: Where to compute; the CPU where not given.
        precision: fp32 or bf16.

    Raises:
        DataError: The folder is missing or damaged, or its configuration names no classes.
    """
    device = torch.device("cpu") if device is None else device
    config = _config(folder)
    classes, temperature = _class_names(folder, config), _temperature(folder, config)
    try:
        (folder / "model.safetensors").open("rb").close()  # what may not be read is told as not there by others
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:  # safetensors, timm and torch each have their own ways to refuse
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{folder}: cannot be opened as a timm model: {reason}; run the recipe again") from error
    model.eval().to(device).to(memory_format=torch.channels_last)
    is_multi_label = config.get("problem_type") == MULTI_LABEL
    return SavedModel(model, preprocessing_of(model), classes, device, precision, temperature, is_multi_label)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file, so there is no finished run here; give the folder that `homing run` wrote, or go"
            " on with `homing run … --resume`"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); run the recipe again") from error
    return config if isinstance(config, dict) else {}


def _class_names(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{folder / 'config.json'}: names no classes (label_names); give the model folder of a homing run"
        )
    return tuple(names)


def _temperature(folder: Path, config: dict[str, Any]) -> float:
    found = config.get("temperature", 1.0)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < math.inf:
        raise DataError(f"{folder / 'config.json'}: temperature is {found!r}; it must be a number above 0")
    return float(found)
