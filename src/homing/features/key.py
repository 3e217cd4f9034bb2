"""What features depend on but the images themselves, as one key: where any of it changes, other rows are meant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from homing.models.backbone import Preprocessing
from homing.models.parts import classifiers_of
from homing.models.structure import structure_digest
from homing.pools import decoding
from homing.pools.formats import ALLOWED_FORMATS

DECODING_VERSION = getattr(decoding, "DECODING_VERSION", 1)
"""Of homing's own way from bytes to a canvas: raised whenever the same bytes come to other pixels."""


def feature_facts(
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    precision: str,
    max_pixels: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """What scanned features depend on.

    Args:
        model: The backbone; its head is left out.
        preprocessing: From canvas to input.
        precision: Of computing, fp32 or bf16.
        max_pixels: Of the largest picture that is read.
        device: cpu, cuda, ...: kinds of devices round differently.
    """
    return canvas_facts(preprocessing, max_pixels=max_pixels) | {
        "backbone": backbone_digest(model),
        "structure": structure_digest(model),
        "preprocessing": asdict(preprocessing),
        "precision": precision,
        "device": device,
        "torch": _release("torch"),
        "timm": _release("timm"),
    }


def canvas_facts(preprocessing: Preprocessing, *, max_pixels: int) -> dict[str, Any]:
    """What decoded canvases depend on, and whether an image can be decoded."""
    return {
        "decoding": DECODING_VERSION,
        "canvas": preprocessing.canvas,
        "interpolation": preprocessing.interpolation,
        "max_pixels": max_pixels,
        "pillow": version("pillow"),
        "formats": ALLOWED_FORMATS,
        "pillow-heif": version("pillow-heif") if "HEIF" in ALLOWED_FORMATS else None,
    }


def store_key(facts: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> str:
    """Name of the store whose rows follow from these facts, 32 hexadecimal digits."""
    text = json.dumps({**facts, "shape": shape, "dtype": dtype}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def backbone_digest(model: nn.Module) -> str:
    """sha256 over the class, names and values of a model without its head, 64 hexadecimal digits.

    It says nothing of how these values are used: see `structure_digest`.
    """
    head = {id(value) for part in classifiers_of(model) for value in part.state_dict(keep_vars=True).values()}
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in head:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _release(name: str) -> str:
    """Version of a library, without what it was built for: nodes of one cluster share a store."""
    return version(name).partition("+")[0]
