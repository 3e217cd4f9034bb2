"""Weights of 16 bits in an exported model: half the bytes, and how far its logits may stray for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from homing.errors import DataError

if TYPE_CHECKING:
    from homing.models.saved import SavedModel

DType = Literal["float32", "float16", "bfloat16"]
TOLERANCES = {"float16": 1e-2, "bfloat16": 1e-1}
"""Largest difference of a logit to that of the whole weights, in units of the largest logit (at least 1)."""


def narrow_weights(path: Path, output: Path, dtype: DType) -> None:
    """Write the tensors of a safetensors file with parameters of another type.

    Statistics of norms stay as they are: variances reach beyond what 16 bits hold.
    """
    import torch
    from safetensors.torch import load_file, save_file

    kind = getattr(torch, dtype)
    tensors = {
        name: value if _is_statistic(name) or not value.is_floating_point() else value.to(kind)
        for name, value in load_file(path).items()
    }
    save_file(tensors, output, metadata={"format": "pt"})


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def check_narrow(whole: SavedModel, narrow: SavedModel, dtype: DType) -> None:
    """Hold a model against the one that it was made from, on random pictures.

    Raises:
        DataError: Their logits differ by more than `TOLERANCES`.
    """
    import numpy as np

    side = whole.preprocessing.canvas
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    ours, theirs = whole.logits(pictures), narrow.logits(pictures)
    off = float((ours - theirs).abs().max() / max(1.0, float(ours.abs().max())))
    if not off <= TOLERANCES[dtype]:
        raise DataError(
            f"with weights of {dtype} logits are off by {off:.1e} (allowed: {TOLERANCES[dtype]:g}), so nothing was"
            " written; take another --dtype"
        )


def narrow_onnx(path: Path) -> None:
    """Make an ONNX file compute in float16; its input and output stay float32.

    Raises:
        DataError: It cannot be converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model: Any = onnx.load(str(path))
    kept = list(model.metadata_props)
    try:
        narrow = convert_float_to_float16(model, keep_io_types=True)
    except Exception as error:  # of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"--dtype float16: this model cannot be converted ({reason}); take float32") from error
    if not narrow.metadata_props:
        narrow.metadata_props.extend(kept)
    onnx.save(narrow, str(path))
