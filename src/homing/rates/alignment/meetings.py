"""What is done where parameters meet the batch: alignments in a training step, a check of rows in a probe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from homing.rates.alignment import rules
from homing.rates.alignment.call import Call, Derivative, Rule, Tracked, listed
from homing.rates.alignment.error import AlignmentError
from homing.rates.alignment.graph import count_uses
from homing.rates.alignment.linear import linear_in_weights, linear_then_norm, merges

_CHUNK = 1 << 19  # elements of a layer's output that are worked on at a time: what a cache holds
_LONG = 1 << 13  # elements from which on one dot product per row beats a product of the whole


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
        self.batch = batch
        self._anchor = torch.zeros((), requires_grad=True)
        self._merged: list[tuple[_Meeting, Any]] = []  # batch norms that may take over the call before, and its node

    def meet(self, call: Call, data: list[Tensor], outputs: list[Any]) -> None:
        """Hook the output of a call that mixes parameters with the batch."""
        first, *others = outputs
        if not isinstance(first, Tensor) or not first.requires_grad:
            return
        self.met |= call.names
        if all(tracked.tangent is None for _, tracked in call.tracked.values()):
            return
        check_rows(first, self.batch, call)
        rule, needs_data = rules.rule_for(call)
        kept = _Kept.apply(self._anchor, *data) if needs_data else None
        meeting = _Meeting(self, call, rule, kept, _autocast_state(first))
        before = getattr(data[0], "_homing_meeting", None) if data else None
        if before is not None and before.is_open(data[0], meeting) and merges(call, before.call, data[0]):
            meeting.before = before
            self._merged.append((meeting, data[0].grad_fn))
        if rule is linear_in_weights:
            meeting.version = first._version
            first._homing_meeting = meeting  # type: ignore[attr-defined]
        first.register_hook(meeting)  # type: ignore[no-untyped-call]
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
                self.add(row_dots(gradient, tangent().expand_as(gradient), self.batch, self.total.dtype))

        argument.register_hook(add)  # type: ignore[no-untyped-call]

    def start(self, roots: Sequence[Tensor]) -> set[int]:
        """Get ready for a backward pass: a norm takes over the call before it where nothing else uses its output.

        Returns:
            The `id`s of the leaves that the pass will reach.
        """
        uses, leaves = count_uses(roots, [node for _, node in self._merged])
        for (meeting, _), count in zip(self._merged, uses, strict=True):
            meeting.takes_over = count == 1
        self._merged.clear()
        return leaves

    def add(self, dots: Tensor) -> None:
        """Add Σ δ·(J·V) of each sample."""
        self.total += dots


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
        self.call = call
        self.version = 0  # of the output, when it was made
        self.before: _Meeting | None = None  # the call whose output this one takes, where the two may merge
        self.takes_over = False
        self._into = into
        self._rule = rule
        self._kept = kept
        self._autocast = autocast
        self._done = False

    def is_open(self, output: Tensor, to: _Meeting) -> bool:
        """Whether the output still is what the call made, for a call of the same precision."""
        return output._version == self.version and not self._done and self._autocast == to._autocast

    def __call__(self, gradient: Tensor) -> None:
        if self._done:
            return  # a second backward pass (refused when the values are asked for), or a norm took over
        self._done = True
        before = self.before if self.takes_over else None
        data = self.take() if before is None else before.take()  # with the trace on: checkpointed parts are run again
        with torch._C.DisableTorchFunction(), torch.no_grad(), _autocast(self._autocast):
            derivative = self._rule(self.call) if before is None else linear_then_norm(before.call, self.call)
            dots = _sample_dots(derivative, data, gradient, self._into, by_rows=self._rule is linear_in_weights)
            self._into.add(dots)
        self._kept = self.before = None  # lets go of the layer's input as early as autograd does

    def take(self) -> Sequence[Tensor]:
        """The call's data; the meeting is over."""
        self._done = True
        data: Sequence[Tensor] = self._kept.grad_fn.saved_tensors if self._kept is not None else ()  # type: ignore[union-attr]
        self._kept = None
        return data


def _sample_dots(
    derivative: Derivative, data: Sequence[Tensor], gradient: Tensor, into: Accumulator, by_rows: bool
) -> Tensor:
    """δ·(J·V) of every sample, a few of them at a time: what is made in between stays in the cache."""
    batch, dtype = into.batch, into.total.dtype
    num_parts = min(batch, -(-gradient.numel() // _CHUNK))
    if num_parts == 1 or not by_rows or len(data[0]) != len(gradient):
        return row_dots(gradient, derivative(*data), batch, dtype)
    size = -(-batch // num_parts)  # samples at a time; a sample's folded rows lie together
    rows = size * (len(gradient) // batch)
    parts = zip(torch.split(data[0], rows), torch.split(gradient, rows), strict=True)
    return torch.cat([row_dots(g, derivative(x), len(g) * batch // len(gradient), dtype) for x, g in parts])


def row_dots(gradient: Tensor, tangent: Tensor, samples: int, dtype: torch.dtype) -> Tensor:
    """Σ δ·t over all of each sample, summed in `dtype`.

    Args:
        gradient: δ [samples × anything folded into the first dimension, ...].
        tangent: t, broadcastable to δ.
        samples: How many.
        dtype: fp32 or fp64.

    Returns:
        [samples]
    """
    if gradient.dtype == torch.float16:
        raise AlignmentError("fp16 gradients under- and overflow in alignments; use bf16 or fp32")
    if tangent.shape != gradient.shape:
        tangent = tangent.expand_as(gradient)
    if gradient.ndim == 4 and gradient.is_contiguous(memory_format=torch.channels_last):
        gradient, tangent = gradient.permute(0, 2, 3, 1), tangent.permute(0, 2, 3, 1)
    gradient, tangent = gradient.to(dtype).reshape(samples, -1), tangent.to(dtype).reshape(samples, -1)
    if gradient.device.type == "cpu" and gradient.shape[1] >= _LONG:
        return torch.stack([torch.dot(g, t) for g, t in zip(gradient.unbind(), tangent.unbind(), strict=True)])
    dots: Tensor = torch.linalg.vecdot(gradient, tangent)
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

    def start(self, roots: Sequence[Tensor]) -> None:
        """No backward pass runs in a probe."""

    def meet_argument(self, argument: Tensor, tracked: Tracked, batch: int) -> None:
        """Nothing to see: the data beside the argument was looked at where it was made."""

    @staticmethod
    def _check(output: Tensor, call: Call) -> None:
        check_rows(output, 2, call)
        if output.reshape(2, -1)[1].isnan().any():
            raise AlignmentError(
                f"in {call.name} with {listed(call.names)} the rows of the samples do not lie together in the "
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
            f"{call.name} with {listed(call.names)} gives the shape {tuple(output.shape)}, whose first dimension "
            f"is not a multiple of the batch size {batch}; leave the parameter out with scope="
        )


def _refuse_further(call: Call) -> Callable[[Tensor], None]:
    def refuse(gradient: Tensor) -> None:
        raise AlignmentError(
            f"the loss depends on a further output of {call.name} with {listed(call.names)}, and only the first "
            "is followed; leave the parameter out with scope="
        )

    return refuse
