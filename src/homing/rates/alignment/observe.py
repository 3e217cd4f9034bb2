"""Per-sample alignments aᵢ = ⟨v, ∇ℓᵢ⟩ out of the training backward itself.

v is a direction in parameter space (the target's gradient): aᵢ > 0 means that a step on sample i helps the target.
No per-sample gradient is stored, there is no second graph, and nothing of the engine stays in the model between
observed steps. How parameters are followed: `alignment_trace`; how one call is differentiated: `alignment_rules`;
how the loss's weights are undone: `loss_factors`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from homing.errors import DivergedError
from homing.rates.alignment.call import Tracked, listed
from homing.rates.alignment.direction import Direction
from homing.rates.alignment.error import AlignmentError
from homing.rates.alignment.loss_factors import LossFactors
from homing.rates.alignment.meetings import Accumulator, RowProbe
from homing.rates.alignment.scope import Scope, names_in_scope, only_linear
from homing.rates.alignment.trace import Trace, tensors_in
from homing.rates.alignment.wrappers import refuse_sharded, uncompiled, unwrap


@dataclass(frozen=True)
class Coverage:
    """How much of the model an observation saw.

    Attributes:
        parameters: Share of the trainable parameters, 0 to 1.
        direction: Share of the squared direction over all trainable parameters that it names, 0 to 1.
    """

    parameters: float
    direction: float


class Alignment:
    """Observes training steps and gives each sample's alignment with a direction.

    Args:
        model: The model that trains; wrappers (`DistributedDataParallel`, `torch.compile`) are looked through. Whatever
            is compiled runs uncompiled in observed steps, whichever object was passed. Batch norm layers have to be in
            eval mode in them.
        observe_every: Steps between observations, ≥ 1; see `due`.
        scope: Parameters to look at: `all`, `last_stage`, `head`, or a predicate on parameter names. A `head` that is
            one linear layer on pooled features costs next to nothing: alignments are (p − y)ᵀ(V h + b) there, and
            nothing before it is looked at.

    Raises:
        AlignmentError: The model has nothing to observe, or is wrapped in a way that cannot be observed.
    """

    def __init__(self, model: nn.Module, observe_every: int = 1, scope: Scope = "all") -> None:
        if observe_every < 1:
            raise AlignmentError(f"observe_every is {observe_every}; allowed: 1 (each step) and more")
        self._model = unwrap(model)
        self._observe_every = observe_every
        self._scope = frozenset(names_in_scope(self._model, scope))
        alone = scope == "head" or isinstance(self._model, nn.Linear)
        self._head = only_linear(self._model, self._scope) if alone else None
        self._probed = self._head is not None  # rows of features [batch, width] can be nothing but samples
        self._warned = False
        self._step: _Step | None = None

    def due(self, step: int) -> bool:
        """Whether a step, counted from 0, is one to observe: a pure function, so that a resumed run observes alike."""
        return step % self._observe_every == 0

    @contextlib.contextmanager
    def observe(self, direction: Mapping[str, Tensor]) -> Iterator[None]:
        """Observe one ordinary forward and backward pass inside this context.

        Args:
            direction: Parameter name → tensor of the parameter's shape, for all trainable parameters in scope.

        Raises:
            AlignmentError: The direction lacks names or has other shapes; or, from inside, the model does something
                that no per-sample gradient is defined for.
        """
        refuse_sharded(self._model)
        step = _Step(self._model, direction, self._scope, self._head, probe=not self._probed)
        self._step = step
        try:
            with uncompiled(), step.hooks(), step.trace:
                yield
        finally:
            step.losses.let_go()
        self._probed = self._probed or step.probed

    def losses(self, losses: Tensor) -> Tensor:
        """Name the per-sample losses where the engine cannot find them by itself.

        Args:
            losses: One number per sample [batch], before any weighting.

        Returns:
            The same tensor.

        Raises:
            AlignmentError: Outside of `observe`, or not one number per sample.
        """
        self._current().losses.declare(losses)
        return losses

    def values(self) -> Tensor:
        """The alignments ⟨direction, ∇ℓᵢ⟩ of the observed step's samples, whatever their weights were.

        Returns:
            [batch], fp32 (fp64 for fp64 models), in the order of the batch.

        Raises:
            AlignmentError: Before an observed backward pass, or after two of them.
            DivergedError: A value is not finite.
        """
        step = self._current()
        values = step.values()
        missed = self._scope - set(step.covered())
        if missed and not self._warned:
            self._warned = True
            warnings.warn(
                f"{len(missed)} parameters get gradients on ways that alignments cannot follow, and are left out: "
                f"{listed(missed)}",
                stacklevel=2,
            )
        return values

    @property
    def covered(self) -> tuple[str, ...]:
        """Names of the parameters that the last observed step covered."""
        return self._current().covered()

    def coverage(self) -> Coverage:
        """Shares of the parameters and of the squared direction that the last observed step covered."""
        step = self._current()
        covered = set(step.covered())
        sizes = {name: p.numel() for name, p in self._model.named_parameters() if p.requires_grad}
        squares = {n: float(step.direction[n].double().square().sum()) for n in sizes if n in step.direction}
        return Coverage(_share(sizes, covered), _share(squares, covered))

    def __getstate__(self) -> dict[str, Any]:
        """A copy, and what is pickled, has observed nothing yet."""
        return {**self.__dict__, "_step": None}

    def _current(self) -> _Step:
        if self._step is None:
            raise AlignmentError("nothing was observed yet; run a forward and backward pass inside observe(direction)")
        return self._step


def _share(amounts: Mapping[str, float], chosen: set[str]) -> float:
    total = sum(amounts.values())
    return sum(amount for name, amount in amounts.items() if name in chosen) / total if total else 1.0


class _Step:
    """All that belongs to one observed step."""

    def __init__(
        self,
        model: nn.Module,
        direction: Mapping[str, Tensor],
        scope: frozenset[str],
        head: nn.Linear | None,
        probe: bool,
    ) -> None:
        self.direction = direction
        self.losses = LossFactors()
        self.probed = False
        self._model = model
        self._head = head  # where all of the scope is one linear layer, and the trace has to look at nothing before
        self._wants_probe = probe
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._scope = [name for name in self._parameters if name in scope]
        self._reached: set[int] = set()
        self._accumulator: Accumulator | None = None
        self._values: Tensor | None = None
        _check_direction(direction, {name: self._parameters[name] for name in self._scope})
        self._leaves = {id(p): self._leaf(name, p) for name, p in self._parameters.items()}
        self.trace = Trace(self._leaves, self, self.losses, asleep=head is not None)

    def _leaf(self, name: str, parameter: Tensor) -> Tracked:
        if name not in self._scope:
            return Tracked(frozenset((name,)), None)
        return Tracked(frozenset((name,)), lambda: _like(self.direction[name], parameter))

    # The trace's observer: the accumulator is made when the first meeting tells the batch size.

    def meet(self, *meeting: Any) -> None:
        self._sum().meet(*meeting)

    def meet_argument(self, *meeting: Any) -> None:
        self._sum().meet_argument(*meeting)

    def start(self, roots: Sequence[Tensor]) -> None:
        self._reached |= self._sum().start(roots)

    def _sum(self) -> Accumulator:
        if self._accumulator is None:
            first = next(iter(self._parameters.values()))
            dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
            if self.losses.batch is None:
                raise AlignmentError(
                    "a backward pass ran in which the observed model had no part; call the very model that Alignment "
                    "was made of inside observe(), and make an Alignment for each model"
                )
            self._accumulator = Accumulator(self.losses.batch, first.device, dtype)
        return self._accumulator

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Hooks on the model for the length of the step."""
        with contextlib.ExitStack() as stack:
            before = self._model.register_forward_pre_hook(self._enter, with_kwargs=True)
            after = self._model.register_forward_hook(self._leave)
            stack.callback(before.remove)
            stack.callback(after.remove)
            if self._head is not None:
                stack.callback(self._head.register_forward_pre_hook(self._wake).remove)
            yield

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.losses.batch is not None:
            raise AlignmentError(
                "the model was called twice in one observed step; observe one forward and backward pass at a time, "
                "and compute the target's gradient outside of observe()"
            )
        with self.trace.pause():
            tensors = [tensor for tensor in tensors_in((args, kwargs)) if tensor.ndim > 0]
            if not tensors:
                raise AlignmentError("the model was called without a tensor that has a batch dimension")
            batch = tensors[0].shape[0]
            if not batch:
                raise AlignmentError("the batch is empty; observe steps with at least one sample")
            if self._wants_probe and batch > 1 and tensors[0].is_floating_point() and self._is_finite():
                self._probe(args, kwargs, batch)
            self.losses.batch = batch
            self.trace.mark_data((args, kwargs))

    def _wake(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """The head is about to be called: look from here on."""
        features = args[0]
        if self.losses.batch is None:
            self.losses.batch = len(features)  # the model's parts are called one by one
        if features.ndim != 2 or len(features) != self.losses.batch:
            raise AlignmentError(
                f"the head is called with features of shape {tuple(features.shape)} for {self.losses.batch} samples; "
                "scope 'head' takes [batch, width]; choose its parameters by a predicate on names as scope instead"
            )
        self.trace.wake()
        self.trace.mark_data(args)

    def _leave(self, module: nn.Module, args: Any, outputs: Any) -> None:
        self.losses.watching = True

    def _is_finite(self) -> bool:
        """Whether the model is; else all that it gives is NaN, which says nothing of samples that are mixed."""
        return all(bool(t.isfinite().all()) for t in (*self._model.parameters(), *self._model.buffers()))

    def _probe(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int) -> None:
        """Check once, on two samples, that the batch keeps to the first dimension (see `RowProbe`)."""
        pair = _two_samples((args, kwargs), batch)
        losses = LossFactors()
        losses.batch = 2
        trace = Trace(self._leaves, RowProbe(), losses)
        trace.mark_data(pair)
        devices = {p.device for p in self._parameters.values() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices), torch.enable_grad(), trace:
            self._model.forward(*pair[0], **pair[1])
        self.probed = True

    def covered(self) -> tuple[str, ...]:
        met = self._accumulator.met if self._accumulator is not None else set()
        return tuple(
            name
            for name in self._scope
            if name in met or (self._values is not None and id(self._parameters[name]) not in self._reached)
        )

    def values(self) -> Tensor:
        if self._values is None:
            factors = self.losses.factors()
            if self._accumulator is None:
                raise AlignmentError("no parameter in scope met the batch in the observed step")
            self._values = self._accumulator.total / factors
        bad = (~self._values.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise DivergedError(
                f"alignments of {len(bad)} of {len(self._values)} samples are not finite (first at position {bad[0]} "
                "of the batch); look at those samples' losses, the direction and the learning rate"
            )
        return self._values


def _check_direction(direction: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    if not isinstance(direction, Mapping):
        kind = type(direction).__name__
        raise AlignmentError(f"the direction is of the type {kind}; give a Direction, or a tensor for each name")
    missing = frozenset(name for name in parameters if name not in direction)
    if missing:
        raise AlignmentError(
            f"the direction lacks {len(missing)} of {len(parameters)} trainable parameters: {listed(missing)}; names "
            "are those of model.named_parameters() of the unwrapped model"
        )
    if isinstance(direction, Direction):
        shapes = direction.shapes
    else:
        wrong = next((name for name in parameters if not isinstance(direction[name], Tensor)), None)
        if wrong is not None:
            kind = type(direction[wrong]).__name__
            raise AlignmentError(f"the direction's {wrong} is of the type {kind}; give tensors")
        shapes = {name: direction[name].shape for name in parameters}
    for name, parameter in parameters.items():
        if shapes[name] != parameter.shape:
            raise AlignmentError(
                f"the direction's {name} has shape {tuple(shapes[name])}, the parameter itself {tuple(parameter.shape)}"
            )


def _like(tangent: Tensor, parameter: Tensor) -> Tensor:
    """The tangent in the parameter's own precision, place and memory format."""
    if (
        tangent.dtype == parameter.dtype
        and tangent.device == parameter.device
        and tangent.stride() == parameter.stride()
    ):
        return tangent.detach()
    return torch.empty_like(parameter).copy_(tangent.detach())


def _two_samples(values: Any, batch: int) -> Any:
    """The first two samples of all tensors that have the batch first; the first NaN where it can be, the second not."""
    from torch.utils._pytree import tree_map

    def cut(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != batch:
            return value
        pair = value[:2].detach().clone()
        if pair.is_floating_point():
            pair[0], pair[1] = float("nan"), pair[1].nan_to_num(0.0, 0.0, 0.0)
        return pair

    return tree_map(cut, values)
