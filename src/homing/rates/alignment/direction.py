"""The direction v that alignments are taken with: P ∇L_T, the target's gradient, or P (θ − θ_ref), from a reference.

Both are gradients, of the target's loss and of ½‖θ − θ_ref‖²: a step down a sample's loss goes down these too where its
alignment is positive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from homing.errors import CheckpointError, DivergedError, HomingError
from homing.rates.alignment.preconditioner import Preconditioner
from homing.rates.alignment.sixteen_bits import SixteenBits
from homing.rates.alignment.wrappers import refuse_sharded, trainable_parameters, unwrap


class Direction(Mapping[str, Tensor]):
    """A mapping from parameter names to the target's direction, which `Alignment.observe` takes.

    `update` adds one target batch; `towards` needs none, and takes the way to weights that are known.

    Gradients are taken by `torch.autograd.grad`, so the `.grad` that training accumulates is neither read nor written,
    and clipping does not reach the direction. Each gradient is preconditioned with the optimizer's state at its own
    update: as the optimizer would have stepped along it then. Averaging is exponential with a memory of `window`
    updates, corrected for its start. One tensor a parameter is kept: of large ones in float32 a copy of 16 bits with a
    power of two for each row (each element is rounded by up to 2⁻¹⁵ of its row's largest), of others one like it.

    Args:
        model: The model that trains; wrappers are looked through.
        optimizer: The base optimizer; None leaves the direction unpreconditioned.
        window: Updates to average over, ≥ 1; 1 takes the newest alone.
        normalise: Scale the direction to length 1 (as it was at the last update).
        dtype: What all averages are kept in, such as `torch.float32` to round nothing in windows of a thousand updates
            and more; None: as said above.

    Raises:
        HomingError: The model has no trainable parameters, or the window is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        window: float = 4,
        normalise: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not 1 <= window < math.inf:
            raise HomingError(f"window is {window}; allowed: 1 (the newest batch alone) and more, finite")
        self.model = unwrap(model)
        self._parameters = trainable_parameters(model)
        if not self._parameters:
            raise HomingError("the model has no trainable parameters, so the target gives no direction; unfreeze some")
        self._preconditioner = Preconditioner(optimizer)
        self._keep = 1 - 1 / window
        self._normalise, self._dtype = normalise, dtype
        self._averages: dict[str, Tensor | SixteenBits] = {}
        self._num_updates = 0
        self._length = 1.0  # that a lookup divides by

    def update(self, loss: Tensor, sync: bool = True) -> None:
        """Take in the target's loss on one batch.

        With several processes, compute the loss with `direction.model`, the model without its wrapper: the gradient is
        averaged over the processes here, and the wrapper would wait for a backward pass that never comes.

        Args:
            loss: A scalar, the mean loss over a batch of target samples, with its graph; the graph is freed.
            sync: Average the gradient over the processes of `torch.distributed`, when it is initialised.

        Raises:
            DivergedError: The gradient is not finite; the direction is left as it was.
            HomingError: It is no scalar, has no graph, or no parameter of this model has a part in it.
            AlignmentError: The model has been sharded meanwhile.
        """
        refuse_sharded(self.model)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"the type {type(loss).__name__}"
            graph = " and no graph (no_grad, or detached)" if not getattr(loss, "requires_grad", False) else ""
            raise HomingError(f"the target's loss has {given}{graph}; give the mean loss of a batch, with its graph")
        live = {name: p for name, p in self._parameters.items() if p.requires_grad}
        found = torch.autograd.grad(loss, list(live.values()), allow_unused=True)
        if all(gradient is None for gradient in found):
            raise HomingError(
                "no parameter of this model has a part in the target's loss; compute it with direction.model"
            )
        if sync and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            found = tuple(_over_processes(p, g) for p, g in zip(live.values(), found, strict=True))
        gradients = {name: gradient for name, gradient in zip(live, found, strict=True) if gradient is not None}
        _check_finite(gradients)
        with torch.no_grad():
            self._take_in(gradients)

    def _take_in(self, gradients: Mapping[str, Tensor]) -> None:
        """Precondition and average; what is kept is corrected for its start."""
        self._num_updates += 1
        share = (1 - self._keep) / (1 - self._keep**self._num_updates)
        pulls = self._preconditioner.apply([(self._parameters[name], g) for name, g in gradients.items()])
        pull_of = dict(zip(gradients, pulls, strict=True))
        for name in self._parameters:
            moved = self._average(name) * (1 - share)
            self._put(name, moved.add_(pull_of.pop(name), alpha=share) if name in pull_of else moved)
        self._measure()

    def _measure(self) -> None:
        if self._normalise:
            squares = sum(self._average(name).double().square().sum() for name in self._averages)
            self._length = float(squares) ** 0.5 or 1.0

    def _average(self, name: str) -> Tensor:
        """What is kept of a parameter, in its own precision or a wider one, and its memory format; zeros at first."""
        kept = self._averages.get(name)
        if isinstance(kept, SixteenBits):
            return kept.whole()
        parameter = self._parameters[name]
        if kept is None:
            return torch.zeros_like(parameter, dtype=self._precision(parameter), requires_grad=False)
        return kept.to(self._precision(parameter))

    def _precision(self, parameter: Tensor) -> torch.dtype:
        """What the average of a parameter is reckoned in."""
        return parameter.dtype if self._dtype is None else torch.promote_types(parameter.dtype, self._dtype)

    def _put(self, name: str, average: Tensor) -> None:
        """Keep a tensor such as `_average` gives, as small as it may be."""
        if self._dtype is not None:
            self._averages[name] = average.to(self._dtype)
        else:
            self._averages[name] = SixteenBits.of(average) if SixteenBits.pays(average) else average

    @torch.no_grad()
    def towards(self, reference: Mapping[str, Tensor]) -> None:
        """Take the way from the weights, as they are now, to reference weights; no target batch is needed.

        An alignment is then positive where a step on the sample moves the weights towards the reference: the direction
        is P (θ − θ_ref), the gradient of ½‖θ − θ_ref‖² as the optimizer would step along it. So ⟨v, ∇ℓᵢ⟩ is
        ⟨θ_ref − θ, −P∇ℓᵢ⟩, the way to the reference times the optimizer's step. Nothing is random in it: it stands
        alone, not averaged, and what was there before is forgotten. Call it before each observed step, as θ moves. With
        Adam and its relatives before their first step, each tensor of the way counts alike, as in `update`.

        Args:
            reference: State dict of the same architecture (of the unwrapped model), such as one that was trained on the
                target; buffers and frozen parameters in it are not looked at. Any precision and device.

        Raises:
            HomingError: Names or shapes are not those of this model's parameters, values are not finite, or the
                reference has the very weights of the model; the direction is left as it was.
        """
        refuse_sharded(self.model)
        _check_reference(reference, self._parameters, self.model.state_dict())
        ways = [(p, p - reference[name].to(p)) for name, p in self._parameters.items()]
        if not any(bool(way.any()) for _, way in ways):
            raise HomingError(
                "the reference has the very weights of the model, so there is no way to go; pass other weights, or a "
                "copy of earlier ones (a state dict changes with its model: clone its tensors)"
            )
        self._averages, self._num_updates = {}, 0
        self._take_in({name: way for name, (_, way) in zip(self._parameters, ways, strict=True)})

    @property
    def is_ready(self) -> bool:
        """Whether there was an update, so that there is a direction to follow."""
        return self._num_updates > 0

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Name → shape, without the tensors that a lookup makes."""
        return {name: self._parameters[name].shape for name in self}

    def __getitem__(self, name: str) -> Tensor:
        """The direction of one parameter, in its own precision; read it, do not write to it."""
        if name not in self:
            raise KeyError(name)
        average = self._average(name)
        own = average if self._length == 1.0 else average / self._length
        return own.to(self._parameters[name].dtype)

    def __contains__(self, name: object) -> bool:
        return self.is_ready and name in self._averages

    def __iter__(self) -> Iterator[str]:
        return iter(self._averages if self.is_ready else ())

    def __len__(self) -> int:
        return len(self._averages) if self.is_ready else 0

    def state_dict(self) -> dict[str, Tensor]:
        """The averages as plain tensors, for a checkpoint; the optimizer's state belongs to the optimizer."""
        averages = {f"average.{name}": self._average(name).clone() for name in self._averages}
        return {**averages, "num_updates_and_length": torch.tensor([self._num_updates, 1.0], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state, checked as a whole before any of it is used.

        Raises:
            CheckpointError: Names or shapes are not those of this model's parameters, or values are not finite.
        """
        averages = {key.removeprefix("average."): t for key, t in state.items() if key.startswith("average.")}
        if len(averages) != len(state) - 1 or "num_updates_and_length" not in state:
            raise CheckpointError(f"direction state has unexpected entries, among {sorted(state)[:3]}")
        for name, average in averages.items():
            if name not in self._parameters:
                raise CheckpointError(f"direction state names {name}, which is no trainable parameter of this model")
            if average.shape != self._parameters[name].shape:
                shapes = tuple(average.shape), tuple(self._parameters[name].shape)
                raise CheckpointError(f"direction state: {name} has shape {shapes[0]}, the parameter {shapes[1]}")
            if not bool(average.isfinite().all()):
                raise CheckpointError(f"direction state: {name} has values that are not finite")
        number, length = _number_and_length(state["num_updates_and_length"])
        self._averages, self._num_updates = {}, int(number)
        for name, average in averages.items():  # with those of older versions comes a length that they were divided by
            parameter = self._parameters[name]
            like = torch.empty_like(parameter, dtype=self._precision(parameter), requires_grad=False)
            self._put(name, like.copy_(average) if length == 1.0 else like.copy_(average).mul_(length))
        self._measure()


def _number_and_length(pair: Tensor) -> tuple[int, float]:
    if pair.shape != (2,) or not bool(pair.isfinite().all()) or pair[0] < 0 or pair[1] <= 0:
        raise CheckpointError(f"direction state: num_updates_and_length is {pair.tolist()}; it is damaged")
    return int(pair[0]), float(pair[1])


def _check_reference(
    reference: Mapping[str, Tensor], parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """Refuse what is no state dict of the model.

    Raises:
        HomingError: A name, a shape or a value is not as it must be.
    """
    if not isinstance(reference, Mapping):
        raise HomingError(f"the reference is of the type {type(reference).__name__}; give a state_dict()")
    missing, unknown = [n for n in parameters if n not in reference], [n for n in reference if n not in state]
    if missing or unknown:
        found = f"lacks {missing[0]}" if missing else f"names {unknown[0]}, which this model does not have"
        raise HomingError(
            f"the reference {found} ({len(missing)} names missing, {len(unknown)} unknown); "
            "give the state_dict() of the same architecture, taken from the model without its wrapper"
        )
    for name, parameter in parameters.items():
        if not isinstance(reference[name], Tensor):
            kind = type(reference[name]).__name__
            raise HomingError(f"the reference's {name} is of the type {kind}; give tensors, as a state_dict() has them")
        if reference[name].shape != parameter.shape:
            shapes = tuple(reference[name].shape), tuple(parameter.shape)
            raise HomingError(
                f"the reference's {name} has shape {shapes[0]}, the model's {shapes[1]}; "
                "give a reference of the same architecture and classes"
            )
        if not bool(reference[name].isfinite().all()):
            raise HomingError(f"the reference's {name} has values that are not finite; give a sound state dict")


def _over_processes(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """The mean over the processes; a process in which the parameter had no part counts as 0."""
    mean = torch.zeros_like(parameter, requires_grad=False) if gradient is None else gradient.clone()
    dist.all_reduce(mean)
    return mean.div_(dist.get_world_size())


def _check_finite(gradients: Mapping[str, Tensor]) -> None:
    """Look at all gradients at once, and one by one only to name the bad one.

    Raises:
        DivergedError: One is not finite.
    """
    if bool(nn.utils.get_total_norm(list(gradients.values())).isfinite()):
        return
    for name, gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise DivergedError(f"the target's gradient of {name} is not finite; the direction was not updated")
