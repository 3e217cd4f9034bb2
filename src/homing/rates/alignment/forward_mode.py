"""Forward-mode differentiation, entered without the noise that torch makes the first time."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator

import torch
import torch.autograd.forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def forward_mode_level() -> Iterator[None]:
    """A level of dual numbers, with attention on the one backend that has forward-mode rules."""
    _load()
    with sdpa_kernel(SDPBackend.MATH), fwAD.dual_level():
        yield


@functools.cache
def _load() -> None:
    """Let torch compile its decompositions now: it does so with a deprecation warning that is not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with fwAD.dual_level():
            fwAD.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]
