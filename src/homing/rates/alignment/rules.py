"""How one call's output moves when the parameters in it move along the direction.

A call in which parameters meet the batch is kept as a `Call`. Its tangent, J·V, is found in the backward pass:
functions that are linear in their parameters are called once more with V for the parameters; a product or a sum
likewise; anything else goes through a forward-mode derivative of that one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.utils import _pytree as pytree

from homing.rates.alignment.call import Call, Derivative, Rule, listed, put_together, take_apart
from homing.rates.alignment.error import AlignmentError
from homing.rates.alignment.forward_mode import forward_mode_level
from homing.rates.alignment.linear import LINEAR_IN_WEIGHTS, linear_in_weights

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


@cache
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


def rule_for(call: Call) -> tuple[Rule, bool]:
    """Choose the cheapest rule that is exact for the call.

    Returns:
        The rule, and whether it needs the data (a sum does not, so nothing has to be kept for it).
    """
    function = call.function
    if function in LINEAR_IN_WEIGHTS and list(call.data) == [0]:  # data comes in by `input`, and by nothing else
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


def repeats(call: Call) -> bool:
    """Whether calling again gives the same by the nature of the function, or nothing in the call moves."""
    return rule_for(call)[0] is not _forward_mode or all(known.tangent is None for _, known in call.tracked.values())


def _product(call: Call) -> Derivative:
    tangents = call.tangents()

    def apply(*data: Tensor) -> Tensor:
        args, _ = call.arguments(dict(zip(call.data, data, strict=True)), tangents)
        result: Tensor = call.function(*args)
        return result

    return apply


def _sum(call: Call) -> Derivative:
    (tangent,) = call.tangents().values()
    return lambda: tangent


def _join(call: Call) -> Derivative:
    tangents = call.tangents()

    def apply(*data: Tensor) -> Tensor:
        still = {position: torch.zeros_like(value) for position, value in zip(call.data, data, strict=True)}
        args, kwargs = call.arguments(still, tangents)
        result: Tensor = call.function(*args, **kwargs)
        return result

    return apply


def moves_alike(call: Call) -> bool:
    """Whether the function only rearranges its one tracked tensor, so that it does the same to the tangent."""
    return call.function in _VIEWS and len(call.tracked) == 1


def _forward_mode(call: Call) -> Derivative:
    values = {position: value for position, (value, _) in call.tracked.items()}

    def apply(*data: Tensor) -> Tensor:
        args, kwargs = call.arguments(dict(zip(call.data, data, strict=True)))
        tangent = dual(call, args, kwargs, values)[1][0]
        return tangent if tangent is not None else data[0].new_zeros(())

    return apply


def dual(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], values: Mapping[int, Tensor]
) -> tuple[list[Any], list[Tensor | None]]:
    """Run the call in forward mode, along its tracked tensors' tangents.

    Returns:
        The outputs' values and their tangents, both flattened (None for what has no tangent).

    Raises:
        AlignmentError: The function has no forward-mode derivative.
    """
    leaves, spec = take_apart(args, kwargs)
    tangents = call.tangents()
    try:
        with forward_mode_level():
            for position, value in values.items():
                tangent = tangents[position].to(value.dtype).expand_as(value)
                leaves[position] = fwAD.make_dual(value.detach().clone(), tangent.clone())  # type: ignore[no-untyped-call]
            leaves = [
                leaf.detach() if isinstance(leaf, Tensor) and i not in values else leaf for i, leaf in enumerate(leaves)
            ]
            dual_args, dual_kwargs = put_together(leaves, spec)
            outputs = pytree.tree_leaves(call.function(*dual_args, **dual_kwargs))
            pairs = [fwAD.unpack_dual(o) if isinstance(o, Tensor) else (o, None) for o in outputs]  # type: ignore[no-untyped-call]
    except NotImplementedError as error:
        raise AlignmentError(
            f"{listed(call.names)} enters {call.name}, which has no forward-mode "
            "derivative; leave the parameter out with scope="
        ) from error
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
