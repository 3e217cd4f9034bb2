"""The direction v = P ∇L_T that alignments are taken with: the target's gradient, averaged and preconditioned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from homing.errors import CheckpointError, DivergedError, HomingError
from homing.rates.preconditioner import Preconditioner
from homing.rates.wrappers import trainable_parameters, unwrap


class Direction(Mapping[str, Tensor]):
    """A mapping from parameter names to the target's direction, which `Alignment.observe` takes.

    `update` adds one target batch. Gradients are taken by `torch.autograd.grad`, so the `.grad` that training
    accumulates is neither read nor written, and clipping does not reach the direction. Averaging is exponential with a
    memory of `window` updates, corrected for its start. What a lookup gives is preconditioned with the optimizer's
    state at that moment, so only one tensor a parameter is kept.

    Args:
        model: The model that trains; wrappers are looked through.
        optimizer: The base optimizer; None leaves the direction unpreconditioned.
        window: Updates to average over, ≥ 1; 1 takes the newest alone.
        normalise: Scale the direction to length 1 (as it was at the last update).

    Raises:
        HomingError: The model has no trainable parameters, or the window is below 1.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer | None = None, window: float = 4, normalise: bool = False
    ) -> None:
        if window < 1:
            raise HomingError(f"window is {window}; allowed: 1 (the newest batch alone) and more")
        self.model = unwrap(model)
        self._parameters = trainable_parameters(model)
        if not self._parameters:
            raise HomingError("the model has no trainable parameters, so the target gives no direction; unfreeze some")
        self._preconditioner = Preconditioner(optimizer)
        self._keep = 1 - 1 / window
        self._normalise = normalise
        self._averages: dict[str, Tensor] = {}
        self._num_updates = 0
        self._length = 1.0

    def update(self, loss: Tensor, sync: bool = True) -> None:
        """Take in the target's loss on one batch.

        With several processes, compute the loss with `direction.model`, the model without its wrapper: the gradient is
        averaged over the processes here, and the wrapper would wait for a backward pass that never comes.

        Args:
            loss: A scalar, the mean loss over a batch of target samples, with its graph; the graph is freed.
            sync: Average the gradient over the processes of `torch.distributed`, when it is initialised.

        Raises:
            DivergedError: The gradient is not finite; the direction is left as it was.
        """
        live = {name: p for name, p in self._parameters.items() if p.requires_grad}
        found = torch.autograd.grad(loss, list(live.values()), allow_unused=True)
        gradients = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(live.items(), found, strict=True)}
        if sync and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            for gradient in gradients.values():
                dist.all_reduce(gradient)
                gradient /= dist.get_world_size()
        for name, gradient in gradients.items():
            if not bool(gradient.isfinite().all()):
                raise DivergedError(f"the target's gradient of {name} is not finite; the direction was not updated")
        for name, gradient in gradients.items():
            if name in self._averages:
                self._averages[name].lerp_(gradient, 1 - self._keep)
            else:
                self._averages[name] = gradient.detach() * (1 - self._keep)
        self._num_updates += 1
        if self._normalise:
            self._length = 1.0
            self._length = float(sum(self[name].double().square().sum() for name in self)) ** 0.5 or 1.0

    @property
    def is_ready(self) -> bool:
        """Whether there was an update, so that there is a direction to follow."""
        return self._num_updates > 0

    def __getitem__(self, name: str) -> Tensor:
        average = self._averages[name]
        correction = 1 - self._keep**self._num_updates
        gradient = average / (correction * self._length)
        return self._preconditioner.apply(self._parameters[name], gradient)

    def __contains__(self, name: object) -> bool:
        return name in self._averages

    def __iter__(self) -> Iterator[str]:
        return iter(self._averages)

    def __len__(self) -> int:
        return len(self._averages)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages as plain tensors, for a checkpoint; the optimizer's state belongs to the optimizer."""
        averages = {f"average.{name}": tensor.clone() for name, tensor in self._averages.items()}
        scalars = torch.tensor([self._num_updates, self._length], dtype=torch.float64)
        return {**averages, "num_updates_and_length": scalars}

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
        self._averages = {n: torch.empty_like(self._parameters[n]).copy_(a) for n, a in averages.items()}
        self._num_updates = int(state["num_updates_and_length"][0])
        self._length = float(state["num_updates_and_length"][1])
