"""A function call taken apart: what in it is data, what is made of parameters, what is constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tangent = Callable[[], Tensor]


@dataclass(frozen=True)
class Tracked:
    """A tensor that is made of parameters and constants alone.

    Attributes:
        names: The parameters in it.
        tangent: Gives the tensor's derivative along the direction; None stands for zero (out of scope).
    """

    names: frozenset[str]
    tangent: Tangent | None


@dataclass(frozen=True)
class Call:
    """A function call, taken apart: what is data, what is tracked, what is constant.

    Attributes:
        function: The function, never in-place.
        leaves: Flattened arguments; the data among them are None and come back from the backward pass.
        spec: How to put the leaves together again; the keywords alone where no tensor lies in a container.
        data: Positions of the data among the leaves.
        tracked: Position → (value, what is known of it).
    """

    function: Callable[..., Any]
    leaves: Sequence[Any]
    spec: pytree.TreeSpec | tuple[str, ...]
    data: Sequence[int]
    tracked: Mapping[int, tuple[Tensor, Tracked]]

    def arguments(self, *replacements: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's (args, kwargs) with some leaves replaced."""
        leaves = list(self.leaves)
        for replacement in replacements:
            for position, value in replacement.items():
                leaves[position] = value
        return put_together(leaves, self.spec)

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return getattr(self.function, "__name__", str(self.function))

    @property
    def names(self) -> frozenset[str]:
        """The parameters that enter."""
        return frozenset[str]().union(*(tracked.names for _, tracked in self.tracked.values()))

    def tangents(self) -> dict[int, Tensor]:
        """Position → the tracked tensor's own tangent, zeros where it is out of scope."""
        return {
            position: tracked.tangent() if tracked.tangent is not None else torch.zeros_like(value)
            for position, (value, tracked) in self.tracked.items()
        }


def take_apart(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], pytree.TreeSpec | tuple[str, ...]]:
    """A call's arguments as leaves, and how to put them together again (`Call.leaves`, `Call.spec`)."""
    if any(_holds_tensors(value) for value in (*args, *kwargs.values())):
        leaves, spec = pytree.tree_flatten((args, kwargs))
        return leaves, spec
    return [*args, *kwargs.values()], tuple(kwargs)


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(isinstance(item, Tensor | tuple | list | dict) for item in value)
    return isinstance(value, dict)


def put_together(leaves: list[Any], spec: pytree.TreeSpec | tuple[str, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Undo `take_apart`."""
    if isinstance(spec, tuple):
        num_args = len(leaves) - len(spec)
        return tuple(leaves[:num_args]), dict(zip(spec, leaves[num_args:], strict=True))
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    return args, kwargs


Derivative = Callable[..., Tensor]
"""data → the first output's tangent, broadcastable to the output."""

Rule = Callable[[Call], Derivative]
"""What has to be done once for a call, before its derivative is applied to the data, all or a few rows at a time."""


def listed(names: frozenset[str]) -> str:
    """Parameter names for a message: the first three, and how many more."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
