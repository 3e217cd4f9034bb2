"""Follow the parameters through a forward pass to every place where they meet the batch.

Three kinds of tensors are told apart while the trace is on:

* *tracked*: made of parameters and constants alone (a weight, a standardised weight, an expanded class token);
  their tangent along the direction is carried with them, by forward mode, at the size of a parameter;
* *data*: made of the model's inputs;
* constants: everything else.

Where a tracked tensor and data enter one call, that call is a *meeting*: its output gets a hook that adds
Σ δᵢ · (J·V)ᵢ to the alignments when the backward pass comes by. Nothing downstream has to be traced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from homing.rates.alignment import rules
from homing.rates.alignment.attention import batch_first_attention
from homing.rates.alignment.call import Call, Tangent, Tracked, listed, take_apart
from homing.rates.alignment.error import AlignmentError
from homing.rates.alignment.loss_factors import LossFactors

_FIRST_LAYERS = {F.conv1d, F.conv2d, F.conv3d, F.linear, F.embedding}
_T = torch.Tensor
_PROPERTIES = {  # asked for often, and no tensors
    *(_T.shape.__get__, _T.dtype.__get__, _T.device.__get__, _T.ndim.__get__, _T.requires_grad.__get__),  # type: ignore[attr-defined]
    *(_T.is_cuda.__get__, _T.is_sparse.__get__, _T.is_quantized.__get__, _T.size, _T.dim, _T.is_floating_point),  # type: ignore[attr-defined]
    *(_T.stride, _T.numel, _T.is_contiguous, _T.__len__, _T.__hash__),
}


class Observer(Protocol):
    """What is done at a meeting: hooks in a training step, a check of rows in the probe."""

    def meet(self, call: Call, data: list[Tensor], outputs: list[Any]) -> None:
        """Take note of a call with its data and its flattened outputs."""

    def start(self, roots: Sequence[Tensor]) -> None:
        """Take note of a backward pass that is about to run."""

    def meet_argument(self, argument: Tensor, tracked: Tracked, batch: int) -> None:
        """Take note of a tracked tensor that was expanded to the batch before it went in."""


class Trace(TorchFunctionMode):
    """The trace of one observed step.

    Args:
        leaves: Trainable parameters by `id`, with what is known of them.
        observer: Called at every meeting.
        losses: Finds the per-sample losses and their factors.
        asleep: Whether to look away until `wake`: nothing before that matters.
    """

    def __init__(
        self, leaves: Mapping[int, Tracked], observer: Observer, losses: LossFactors, asleep: bool = False
    ) -> None:
        super().__init__()
        self._leaves = leaves
        self._observer = observer
        self._losses = losses
        self._derived: dict[int, tuple[Tensor, Tracked]] = {}  # holds the tensor, so that its id stays its own
        self._token = object()
        self._paused = asleep

    def wake(self) -> None:
        """Look from now on."""
        self._paused = False

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Look away for a while."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def mark_data(self, values: Any) -> None:
        """Declare tensors, nested anyhow, to be made of the batch."""
        for tensor in tensors_in((values,)):
            tensor._homing_data = self._token  # type: ignore[attr-defined]

    def _is_data(self, tensor: Tensor) -> bool:
        marked = getattr(tensor, "_homing_data", None) is self._token
        return marked or (tensor.requires_grad and self._known(tensor) is None)

    def _known(self, tensor: Tensor) -> Tracked | None:
        leaf = self._leaves.get(id(tensor))
        if leaf is not None:
            return leaf
        derived = self._derived.get(id(tensor))
        return derived[1] if derived is not None else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        if func in _PROPERTIES:
            return func(*args, **kwargs)
        if func is torch.Tensor.backward or func is torch.autograd.backward:
            return self._backward(*args, **kwargs)
        if func is torch.autograd.grad:
            self._observer.start(list(tensors_in(args[:1] or (kwargs["outputs"],))))
            return func(*args, **kwargs)
        tensors = list(tensors_in((*args, *kwargs.values())))
        tracked, data = self._sort(tensors)
        if self._losses.batch is None and tracked and func in _FIRST_LAYERS and self._known(args[0]) is None:
            self._losses.batch = args[0].shape[0]  # the model's parts are called one by one
            self.mark_data(args[0])
            data = [args[0], *data]
        if func is F.batch_norm and data:
            self._refuse_batch_statistics(args, kwargs)
        if tracked and data and not self._losses.is_reduced(tensors):
            outputs = self._meet(func, args, kwargs)
        elif tracked and not data:
            outputs = self._derive(func, args, kwargs)
        else:
            outputs = func(*args, **kwargs)
        if data:
            self._losses.see(func, args, kwargs, data, outputs)
            for output in tensors_in((outputs,)):
                if not output.requires_grad:
                    output._homing_data = self._token  # type: ignore[attr-defined]
        return outputs

    def _sort(self, tensors: Sequence[Tensor]) -> tuple[bool, list[Tensor]]:
        """Whether some are made of parameters alone, and which are made of the batch."""
        tracked, data = False, []
        for tensor in tensors:
            if id(tensor) in self._leaves or id(tensor) in self._derived:
                tracked = True
            elif tensor.requires_grad or getattr(tensor, "_homing_data", None) is self._token:
                data.append(tensor)
        return tracked, data

    def _backward(
        self,
        tensors: Any,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
        grad_tensors: Any = None,
    ) -> None:
        """Run the backward pass with the trace on, so that recomputed (checkpointed) parts are traced alike."""
        losses = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
        seeds = gradient if gradient is not None else grad_tensors
        seeds = (seeds,) * len(losses) if seeds is None or isinstance(seeds, Tensor) else tuple(seeds)
        seeds = tuple(torch.ones_like(loss) if seed is None else seed for loss, seed in zip(losses, seeds, strict=True))
        retain = create_graph if retain_graph is None else retain_graph
        self._observer.start(losses)
        only = () if inputs is None else (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        with self:
            torch.autograd.Variable._execution_engine.run_backward(
                losses, seeds, retain, create_graph, only, allow_unreachable=True, accumulate_grad=True
            )

    def _take_apart(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Call, list[Tensor]]:
        leaves, spec = take_apart(args, kwargs)
        tracked: dict[int, tuple[Tensor, Tracked]] = {}
        data: dict[int, Tensor] = {}
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                known = self._known(leaf)
                if known is not None:
                    tracked[position] = (leaf, known)
                elif self._is_data(leaf):
                    data[position] = leaf
                    leaves[position] = None
        names = frozenset[str]().union(*(known.names for _, known in tracked.values()))
        call = Call(rules.out_of_place(func, names), leaves, spec, list(data), tracked)
        kept = [d.clone() for d in data.values()] if rules.is_in_place(func) else list(data.values())
        return call, kept

    def _meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attend(args, kwargs)
        if func is F.multi_head_attention_forward:
            attended, weights = self._meet(batch_first_attention, args, kwargs)
            return attended.transpose(0, 1), weights
        call, data = self._take_apart(func, args, kwargs)
        repeats = rules.repeats(call)
        state = None if repeats else _random_states(data)
        outputs = func(*args, **kwargs)
        if not repeats and not all(map(torch.equal, state or (), _random_states(data))):
            raise AlignmentError(
                f"{call.name} with {listed(call.names)} draws random numbers (dropout?), so that it cannot be called "
                "again alike; turn the chance off there, or leave the parameters out with scope="
            )
        if isinstance(outputs, Tensor) and outputs._is_view() and not rules.is_in_place(func):
            # A later write into a view would cut the hooked node out of the graph; nobody else knows this base.
            outputs = torch.ops.aten._unsafe_view(outputs, outputs.shape)
        self._observer.meet(call, data, [outputs] if isinstance(outputs, Tensor) else pytree.tree_leaves(outputs))
        return outputs

    def _attend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Fused attention has no forward mode: expand what is tracked over the batch and hook its gradient."""
        call, data = self._take_apart(F.scaled_dot_product_attention, args, kwargs)
        batch = max(tensor.shape[0] for tensor in data)
        expanded = {}
        for position, (value, tracked) in call.tracked.items():
            missing = data[0].ndim - value.ndim
            shape = (batch, *(1,) * (missing - 1), *value.shape) if missing else (batch, *value.shape[1:])
            expanded[position] = value.expand(shape)
            self._observer.meet_argument(expanded[position], tracked, batch)
        new_args, new_kwargs = call.arguments(dict(zip(call.data, data, strict=True)), expanded)
        return F.scaled_dot_product_attention(*new_args, **new_kwargs)

    def _derive(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of parameters and constants, and carry the tangent through it."""
        leaves, spec = take_apart(args, kwargs)
        tracked = {
            position: (leaf, known)
            for position, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and (known := self._known(leaf)) is not None
        }
        values = {position: value.detach() for position, (value, _) in tracked.items()}
        if rules.is_in_place(func):
            values = {position: value.clone() for position, value in values.items()}
        outputs = func(*args, **kwargs)
        flat = pytree.tree_leaves(outputs)
        if not any(isinstance(output, Tensor) and output.requires_grad for output in flat):
            return outputs
        names = frozenset[str]().union(*(known.names for _, known in tracked.values()))
        tangents: list[Tensor | None] = [None] * len(flat)
        if any(known.tangent is not None for _, known in tracked.values()):
            call = Call(func, leaves, spec, [], tracked)
            with torch.no_grad():
                tangents = self._carry(call, flat, values)
        for output, tangent in zip(flat, tangents, strict=True):
            if isinstance(output, Tensor) and output.requires_grad:
                self._derived[id(output)] = (output, Tracked(names, _constant(tangent)))
        return outputs

    @staticmethod
    def _carry(call: Call, outputs: list[Any], values: Mapping[int, Tensor]) -> list[Tensor | None]:
        if rules.moves_alike(call):
            args, kwargs = call.arguments(call.tangents())
            return [call.function(*args, **kwargs)]
        args, kwargs = call.arguments()
        again, tangents = rules.dual(call, args, kwargs, values)
        _refuse_chance(call, outputs, again)
        return tangents

    @staticmethod
    def _refuse_batch_statistics(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training")
        if {**dict(zip(names, args, strict=False)), **kwargs}.get("training", False):
            raise AlignmentError(
                "a batch norm layer runs in training mode: its statistics mix the samples of a batch, so no sample "
                "has a gradient of its own; put the batch norm layers in eval mode (frozen) in observed steps"
            )


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts, in order."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def _constant(tangent: Tensor | None) -> Tangent | None:
    return None if tangent is None else lambda: tangent


def _random_states(data: Sequence[Tensor]) -> list[Tensor]:
    devices = {tensor.device for tensor in data if tensor.is_cuda}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def _refuse_chance(call: Call, first: list[Any], again: list[Any]) -> None:
    for one, other in zip(first, again, strict=True):
        if isinstance(one, Tensor) and not torch.equal(one, other):
            raise AlignmentError(
                f"{call.name} gives another result when it is called again on {listed(call.names)} (dropout?): "
                "its derivative is not that of the pass that was trained; turn the chance off there, or leave the "
                "parameter out with scope="
            )
