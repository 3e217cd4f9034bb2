"""How a model computes with its weights: which modules it is made of, and their settings."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import torch
from torch import nn

from homing.models.parts import classifiers_of

_LEFT_OUT = frozenset(vars(nn.Module())) | {"num_classes"}
"""Attributes that every module has, and the size of the head."""


def structure_digest(model: nn.Module) -> str:
    """sha256 over types, order and settings of a model's modules but its head's, 64 hexadecimal digits.

    Models of equal weights may differ in padding, in what norms add to a variance, in activation functions or in the
    number of attention heads. What modules keep of settings changes between releases of timm and torch, and so does
    the digest: it tells models of one release apart.
    """
    head = {id(module) for part in classifiers_of(model) for module in part.modules()}
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if id(module) not in head:
            settings = {key: _text(value) for key, value in vars(module).items() if key not in _LEFT_OUT}
            told = sorted((key, text) for key, text in settings.items() if text)
            digest.update(f"{name} {_name(type(module))} {told}\n".encode())
    return digest.hexdigest()


def _text(value: Any) -> str:
    """A setting as text that is the same in every process; empty for what is none, such as tensors kept for later."""
    if isinstance(value, bool | int | float | str | torch.dtype):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, partial):
        named = sorted((key, _text(one)) for key, one in value.keywords.items())
        return f"{_text(value.func)}({_text(value.args)}, {named})"
    return _name(value) if callable(value) and hasattr(value, "__qualname__") else ""


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
