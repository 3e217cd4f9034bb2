"""What is done where parameters meet the batch: alignments in a training step, a check of rows in a probe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from homing.rates import alignment_rules as rules
from homing.rates.alignment_error import AlignmentError
from homing.rates.alignment_rules import Call, Rule, Tracked

_CHUNK = 1 << 19  # elements of a layer's output that are worked on at a time: what a cache holds


class Accumulator:
    """Adds up cᵢ·⟨direction, ∇ℓᵢ⟩ over the meetings of one step, as the backward pass goes by.

    Args:
        batch: Number of samples.
        device: Where the parameters are.
        dtype: Of the sum: fp64 for fp64 models, else fp32.
    """

    def __init__(self, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        self.total = torch.zeros(batch, device=device, dtype=dtype)
        self.met: set[str] = set()
        self._batch = batch
        self._anchor = torch.zeros((), requires_grad=True)

    def meet(self, call: Call, data: list[Tensor], outputs: list[Any]) -> None:
        """Hook the output of a call that mixes parameters with the batch."""
        first, *others = outputs
        if not isinstance(first, Tensor) or not first.requires_grad:
            return
        self.met |= call.names
        if all(tracked.tangent is None for _, tracked in call.tracked.values()):
            return
        check_rows(first, self._batch, call)
        rule, needs_data = rules.rule_for(call)
        kept = _Kept.apply(self._anchor, *data) if needs_data else None
        first.register_hook(_Meeting(self, call, rule, kept, _autocast_state(first)))  # type: ignore[no-untyped-call]
        for other in others:
            if isinstance(other, Tensor) and other.requires_grad:
                other.register_hook(_refuse_further(call))  # type: ignore[no-untyped-call]

    def meet_argument(self, argument: Tensor, tracked: Tracked, batch: int) -> None:
        """Hook the gradient of a tracked tensor that was expanded to the batch."""
        self.met |= tracked.names
        if tracked.tangent is None:
            return
        tangent = tracked.tangent

        def add(gradient: Tensor) -> None:
            with torch._C.DisableTorchFunction():
                self.add(_row_dots(gradient, tangent().expand_as(gradient), self.total.dtype))

        argument.register_hook(add)  # type: ignore[no-untyped-call]

    def add(self, row_dots: Tensor) -> None:
        """Add Σ δ·(J·V) of each row; the rows that a layer folds out of a sample lie together."""
        self.total += row_dots.reshape(self._batch, -1).sum(1)


class _Kept(torch.autograd.Function):
    """Keep tensors the way autograd keeps its own: no copy, version-checked, recomputed under checkpointing."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise AssertionError("nothing is computed from a kept tensor")


class _Meeting:
    """The hook on one output of one call."""

    def __init__(
        self, into: Accumulator, call: Call, rule: Rule, kept: Tensor | None, autocast: tuple[Any, ...]
    ) -> None:
        self._into = into
        self._call = call
        self._rule = rule
        self._kept = kept
        self._autocast = autocast
        self._done = False

    def __call__(self, gradient: Tensor) -> None:
        if self._done:
            return  # a second backward pass: refused when the values are asked for
        self._done = True
        data: Sequence[Tensor] = self._kept.grad_fn.saved_tensors if self._kept is not None else ()  # type: ignore[union-attr]
        with torch._C.DisableTorchFunction(), torch.no_grad(), _autocast(self._autocast):
            self._into.add(self._dots(data, gradient))
        self._kept = None  # lets go of the layer's input as early as autograd does

    def _dots(self, data: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """δ·(J·V) of every row, a few rows at a time: what is made in between stays in the cache."""
        chunks = -(-gradient.numel() // _CHUNK)
        if chunks == 1 or self._rule is not rules.linear_in_weights or len(data[0]) != len(gradient):
            return _row_dots(gradient, self._rule(self._call, data, gradient), self._into.total.dtype)
        parts = zip(data[0].chunk(chunks), gradient.chunk(chunks), strict=True)
        return torch.cat([_row_dots(g, self._rule(self._call, [x], g), self._into.total.dtype) for x, g in parts])


def _row_dots(gradient: Tensor, tangent: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ δ·t over all but the first dimension, summed in `dtype`."""
    if gradient.dtype == torch.float16:
        raise AlignmentError("fp16 gradients under- and overflow in alignments; use bf16 or fp32")
    tangent = tangent.expand_as(gradient)
    if gradient.ndim == 4 and gradient.is_contiguous(memory_format=torch.channels_last):
        gradient = gradient.permute(0, 2, 3, 1)
        tangent = tangent.permute(0, 2, 3, 1)
    rows = len(gradient)
    gradient, tangent = gradient.to(dtype), tangent.to(dtype)
    dots: Tensor = torch.linalg.vecdot(gradient.reshape(rows, -1), tangent.reshape(rows, -1))
    return dots


def _autocast_state(tensor: Tensor) -> tuple[Any, ...]:
    kind = tensor.device.type
    return kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)


@contextlib.contextmanager
def _autocast(state: tuple[Any, ...]) -> Iterator[None]:
    """The mixed precision that the call itself ran in."""
    kind, dtype, enabled = state
    if not enabled:
        yield
        return
    with torch.autocast(kind, dtype=dtype, cache_enabled=False):
        yield


class RowProbe:
    """Checks, on two samples of which the first is made NaN, that every meeting keeps the samples apart.

    At each meeting only the first half of the output's rows may be NaN. Layers that fold windows or heads into the
    batch pass; a layer that puts another dimension first, or mixes samples, does not.
    """

    def meet(self, call: Call, data: list[Tensor], outputs: list[Any]) -> None:
        """Look at the output's rows."""
        if isinstance(outputs[0], Tensor) and outputs[0].requires_grad:
            self._check(outputs[0].detach(), call)

    def meet_argument(self, argument: Tensor, tracked: Tracked, batch: int) -> None:
        """Nothing to see: the data beside the argument was looked at where it was made."""

    @staticmethod
    def _check(output: Tensor, call: Call) -> None:
        check_rows(output, 2, call)
        if output.reshape(2, -1)[1].isnan().any():
            raise AlignmentError(
                f"in {call.name} with {rules.listed(call.names)} the rows of the samples do not lie together in the "
                f"first dimension (output shape {tuple(output.shape)} for a batch of 2), or samples are mixed; leave "
                "the parameter out with scope="
            )


def check_rows(output: Tensor, batch: int, call: Call) -> None:
    """Refuse an output whose first dimension is not the batch, or the batch times something folded into it.

    Raises:
        AlignmentError: No batch dimension was found.
    """
    if output.ndim == 0 or output.shape[0] % batch:
        raise AlignmentError(
            f"{call.name} with {rules.listed(call.names)} gives the shape {tuple(output.shape)}, whose first dimension "
            f"is not a multiple of the batch size {batch}; leave the parameter out with scope="
        )


def _refuse_further(call: Call) -> Callable[[Tensor], None]:
    def refuse(gradient: Tensor) -> None:
        raise AlignmentError(
            f"the loss depends on a further output of {call.name} with {rules.listed(call.names)}, and only the first "
            "is followed; leave the parameter out with scope="
        )

    return refuse
