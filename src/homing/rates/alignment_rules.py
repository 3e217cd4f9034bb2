"""How one call's output moves when the parameters in it move along the direction.

A call in which parameters meet the batch is kept as a `Call`. Its tangent, J·V, is found in the backward pass:
functions that are linear in their parameters are called once more with V for the parameters; a product or a sum
likewise; anything else goes through a forward-mode derivative of that one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from homing.rates.alignment_error import AlignmentError
from homing.rates.forward_mode import forward_mode_level

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
        spec: How to put the leaves together again.
        data: Positions of the data among the leaves.
        tracked: Position → (value, what is known of it).
    """

    function: Callable[..., Any]
    leaves: Sequence[Any]
    spec: pytree.TreeSpec
    data: Sequence[int]
    tracked: Mapping[int, tuple[Tensor, Tracked]]

    def arguments(self, *replacements: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's (args, kwargs) with some leaves replaced."""
        leaves = list(self.leaves)
        for replacement in replacements:
            for position, value in replacement.items():
                leaves[position] = value
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

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


Rule = Callable[[Call, Sequence[Tensor], Tensor], Tensor]
"""(call, data, output gradient) → the first output's tangent, broadcastable to the gradient."""

# Positional parameter names of the functions that are linear in (weight, bias) together.
_NORM = ("input", "normalized_shape", "weight", "bias")
_CONV = ("input", "weight", "bias")
_LINEAR_IN_WEIGHTS: dict[Callable[..., Any], tuple[str, ...]] = {
    F.linear: _CONV,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (*_CONV, "stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        (*_CONV, "stride", "padding", "output_padding", "groups", "dilation"),
    ),
    F.layer_norm: (*_NORM, "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    F.embedding: ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
}
_T = torch.Tensor
_PRODUCTS = {
    *(torch.mul, torch.multiply, _T.mul, _T.multiply, _T.__mul__, _T.__rmul__),
    *(torch.matmul, torch.bmm, _T.matmul, _T.bmm, _T.__matmul__, _T.__rmatmul__),
}
_VIEWS = {
    *(_T.expand, _T.expand_as, _T.repeat, _T.view, _T.reshape, _T.flatten, _T.permute, _T.transpose, _T.unsqueeze),
    *(_T.squeeze, _T.contiguous, _T.clone, _T.__getitem__, _T.to, _T.float, _T.double, _T.type_as),
    *(torch.reshape, torch.flatten, torch.permute, torch.transpose, torch.unsqueeze, torch.squeeze, torch.index_select),
}
_JOINS = {torch.cat, torch.concat, torch.stack}
_SUMS = {torch.add, _T.add, _T.__add__, _T.__radd__}
_OUT_OF_PLACE: dict[Callable[..., Any], Callable[..., Any]] = {
    _T.add_: _T.add,
    _T.__iadd__: _T.add,
    _T.sub_: _T.sub,
    _T.__isub__: _T.sub,
    _T.mul_: _T.mul,
    _T.__imul__: _T.mul,
    _T.div_: _T.div,
    _T.__itruediv__: _T.div,
}


def is_in_place(function: Callable[..., Any]) -> bool:
    """Whether a torch function writes into its first argument."""
    name = getattr(function, "__name__", "")
    dunder = name.startswith("__") and name.endswith("__")
    return (
        name == "__setitem__"
        or (name.startswith("__i") and function in _OUT_OF_PLACE)
        or (name.endswith("_") and not dunder)
    )


def out_of_place(function: Callable[..., Any], names: frozenset[str]) -> Callable[..., Any]:
    """The same function without the writing.

    Raises:
        AlignmentError: There is none that the engine knows.
    """
    if not is_in_place(function):
        return function
    if function not in _OUT_OF_PLACE:
        raise AlignmentError(
            f"{listed(names)} is written into the batch by {function.__name__}, which cannot be followed; "
            "build the tensor with torch.cat or torch.where, or leave the parameter out with scope="
        )
    return _OUT_OF_PLACE[function]


def listed(names: frozenset[str]) -> str:
    """Parameter names for a message: the first three, and how many more."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


def rule_for(call: Call) -> tuple[Rule, bool]:
    """Choose the cheapest rule that is exact for the call.

    Returns:
        The rule, and whether it needs the data (a sum does not, so nothing has to be kept for it).
    """
    function = call.function
    if function in _LINEAR_IN_WEIGHTS and list(call.data) == [0]:  # data comes in by `input`, and by nothing else
        return linear_in_weights, True
    if function in _JOINS:
        return _join, True
    if len(call.tracked) == 1 and len(call.data) == 1:
        args, kwargs = call.arguments()
        if function in _PRODUCTS and not kwargs:
            return _product, True
        if function in _SUMS and not kwargs and len(args) == 2:
            return _sum, False
    return _forward_mode, True


def _bind(call: Call, *replacements: Mapping[int, Any]) -> dict[str, Any]:
    args, kwargs = call.arguments(*replacements)
    return {**dict(zip(_LINEAR_IN_WEIGHTS[call.function], args, strict=False)), **kwargs}


def linear_in_weights(call: Call, data: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """The rule for functions that are linear in their weight and bias: call again with the tangents for them."""
    tangents = call.tangents()
    bound = _bind(call, dict(zip(call.data, data, strict=True)), tangents)
    ours = {id(tangent) for tangent in tangents.values()}
    if id(bound.get("bias")) not in ours:
        bound["bias"] = None  # a bias that does not move adds nothing
    weight = bound.get("weight")
    if id(weight) not in ours:
        bound["weight"] = torch.zeros_like(weight if weight is not None else bound["bias"])
    if "bias" not in _LINEAR_IN_WEIGHTS[call.function]:
        del bound["bias"]
    function: Callable[..., Tensor] = call.function
    return function(**bound)


def _product(call: Call, data: Sequence[Tensor], gradient: Tensor) -> Tensor:
    args, _ = call.arguments(dict(zip(call.data, data, strict=True)), call.tangents())
    result: Tensor = call.function(*args)
    return result


def _sum(call: Call, data: Sequence[Tensor], gradient: Tensor) -> Tensor:
    (tangent,) = call.tangents().values()
    return tangent


def _join(call: Call, data: Sequence[Tensor], gradient: Tensor) -> Tensor:
    still = {position: torch.zeros_like(value) for position, value in zip(call.data, data, strict=True)}
    args, kwargs = call.arguments(still, call.tangents())
    result: Tensor = call.function(*args, **kwargs)
    return result


def moves_alike(call: Call) -> bool:
    """Whether the function only rearranges its one tracked tensor, so that it does the same to the tangent."""
    return call.function in _VIEWS and len(call.tracked) == 1


def _forward_mode(call: Call, data: Sequence[Tensor], gradient: Tensor) -> Tensor:
    args, kwargs = call.arguments(dict(zip(call.data, data, strict=True)))
    values = {position: value for position, (value, _) in call.tracked.items()}
    _, outputs = dual(call, args, kwargs, values)
    tangent = outputs[0]
    return tangent if tangent is not None else torch.zeros((), dtype=gradient.dtype, device=gradient.device)


def dual(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], values: Mapping[int, Tensor]
) -> tuple[list[Any], list[Tensor | None]]:
    """Run the call in forward mode, along its tracked tensors' tangents.

    Returns:
        The outputs' values and their tangents, both flattened (None for what has no tangent).

    Raises:
        AlignmentError: The function has no forward-mode derivative.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tangents = call.tangents()
    try:
        with forward_mode_level():
            for position, value in values.items():
                tangent = tangents[position].to(value.dtype).expand_as(value)
                leaves[position] = fwAD.make_dual(value.detach().clone(), tangent.clone())  # type: ignore[no-untyped-call]
            leaves = [
                leaf.detach() if isinstance(leaf, Tensor) and i not in values else leaf for i, leaf in enumerate(leaves)
            ]
            dual_args, dual_kwargs = pytree.tree_unflatten(leaves, spec)
            outputs = pytree.tree_leaves(call.function(*dual_args, **dual_kwargs))
            pairs = [fwAD.unpack_dual(o) if isinstance(o, Tensor) else (o, None) for o in outputs]  # type: ignore[no-untyped-call]
    except NotImplementedError as error:
        raise AlignmentError(
            f"{listed(call.names)} enters {call.name}, which has no forward-mode "
            "derivative; leave the parameter out with scope="
        ) from error
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
