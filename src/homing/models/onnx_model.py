"""A model that `homing export --format onnx` wrote, opened again with onnxruntime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homing.errors import DataError, RecipeError
from homing.models.backbone import Preprocessing
from homing.models.saved import probabilities_of
from homing.pools.images import Canvases


@dataclass(frozen=True)
class OnnxModel:
    """As `SavedModel`, as far as predictions need it.

    Attributes:
        session: Of onnxruntime.
        preprocessing: The same as in training.
        classes: Names of its outputs, in their order.
        temperature: What logits are divided by before they become probabilities; 1 where none was fitted.
        is_multi_label: Whether an image may be of several of the classes.
    """

    session: Any
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    temperature: float = 1.0
    is_multi_label: bool = False

    def logits(self, canvases: Canvases) -> Tensor:
        """Logits of decoded pictures: uint8 [B, canvas, canvas, 3] → float32 [B, C]."""
        images = torch.from_numpy(canvases).permute(0, 3, 1, 2)
        inputs = self.preprocessing.normalize(self.preprocessing.center(images).float() / 255)
        (logits,) = self.session.run(["logits"], {"images": inputs.contiguous().numpy()})
        return torch.from_numpy(logits).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits [B, C]: float64 [B, C], at the model's temperature."""
        return probabilities_of(logits, self.temperature, is_multi_label=self.is_multi_label)

    def width(self) -> int:
        """As of `embedded`."""
        return self.embedded(np.zeros((0, 0, 0, 3), np.uint8))[0].shape[1]

    def embedded(self, canvases: Canvases) -> tuple[Tensor, Tensor]:
        """There are none.

        Raises:
            RecipeError: Always.
        """
        raise RecipeError("--embeddings: an ONNX file gives class scores alone; give the run, or its timm folder")


def open_onnx(folder: Path, device: torch.device) -> OnnxModel:
    """Open an exported folder with `model.onnx`; classes and preprocessing stand in the file itself.

    Raises:
        RecipeError: onnxruntime is not installed, or knows no such device.
        DataError: The file is damaged, or was not written by homing.
    """
    path = folder / "model.onnx"
    if find_spec("onnxruntime") is None:
        raise RecipeError(f"{path}: needs onnxruntime: pip install 'homing[onnx]'")
    import onnxruntime

    kind = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type)
    if kind not in onnxruntime.get_available_providers():
        if device.type != "cuda":
            raise RecipeError(f"--device {device}: onnxruntime computes on cpu or cuda; give one of them")
        kind, device = "CPUExecutionProvider", torch.device("cpu")  # the package for CPUs, on a machine with a GPU
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    provider = (kind, {"device_id": device.index or 0}) if device.type == "cuda" else kind
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        about = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
        numbers = {name: tuple(about[name]) for name in ("mean", "std")}
        preprocessing = Preprocessing(about["size"], about["canvas"], about["interpolation"], **numbers)
        classes = tuple(map(str, about["classes"]))
        temperature = float(about.get("temperature") or 1.0)
    except KeyError as error:
        raise DataError(f"{path}: says nothing of {error}; give a folder that `homing export` wrote") from error
    except Exception as error:  # onnxruntime has kinds of its own
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be opened as an ONNX model ({reason}); export it again") from error
    return OnnxModel(session, preprocessing, classes, temperature, about.get("task") == "multi_label")
