"""Find the per-sample losses in a training step, and how much the backward pass weighs each of them.

The backward pass starts from total = f(ℓ₁ … ℓ_B): weights, a mean, a division for gradient accumulation. The
alignments that come out of it are scaled by cᵢ = ∂total/∂ℓᵢ, and dividing by cᵢ gives those of the unweighted ℓᵢ.

The losses are found where the samples are first mixed or weighted: the last tensor of one number per sample, made of
the model's output, before it is multiplied with another per-sample tensor or reduced over the batch. A model that takes
the labels and gives the loss itself reduces it in its forward pass: a call that both makes and reduces losses is seen
there too.

A factor of exactly 0 would make its sample unobservable. So the hook on the losses lifts it to 2⁻⁴⁰ (fp64: 2⁻⁸⁰) of the
largest factor in the batch: less than a rounding error beside any other sample's gradient, but, since floating-point
numbers keep their relative precision, a full-precision alignment after the division.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from homing.rates.alignment.error import AlignmentError

_FUSED = {
    *(F.cross_entropy, F.nll_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits),
    *(F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss),
}
_T = torch.Tensor
_WEIGHTINGS = {
    *(torch.mul, torch.multiply, _T.mul, _T.multiply, _T.__mul__, _T.__rmul__, _T.mul_, _T.__imul__),
    *(torch.div, torch.divide, _T.div, _T.divide, _T.__truediv__, _T.div_, _T.__itruediv__),
}


class LossFactors:
    """The factors cᵢ = ∂total/∂ℓᵢ of one observed step."""

    def __init__(self) -> None:
        self.batch: int | None = None
        self.watching = False  # from the end of the model's forward pass
        self._explicit = False
        self._candidates: dict[int, Tensor | None] = {}
        self._scaled: dict[int, tuple[Tensor, Tensor]] = {}  # losses times a number → (that, the losses themselves)
        self._reduced = object()
        self._fired: list[Tensor] = []
        self._problems: list[str] = []
        self._hooks: list[Any] = []

    def declare(self, losses: Tensor) -> None:
        """Take these as the losses and look no further."""
        if losses.shape != (self.batch,) and self.batch is not None:
            raise AlignmentError(
                f"the losses have shape {tuple(losses.shape)} where the batch has {self.batch} samples; "
                'give one number per sample, as with reduction="none"'
            )
        self.let_go()  # of what was taken for the losses before
        self._candidates.clear()
        self._explicit = True
        self._hook(losses)

    def is_reduced(self, tensors: list[Tensor]) -> bool:
        """Whether a tensor comes after the losses: nothing there belongs to a sample's own loss any more."""
        found = self.watching or self._candidates
        return bool(found) and any(getattr(t, "_homing_reduced", None) is self._reduced for t in tensors)

    def see(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], data: list[Tensor], outputs: Any
    ) -> None:
        """Look at one call on data; in the model's forward pass only for losses that are made and reduced at once."""
        if not (self.watching or self._candidates or func in _FUSED) or self._explicit or not torch.is_grad_enabled():
            return
        made = [o for o in (outputs if isinstance(outputs, tuple | list) else (outputs,)) if isinstance(o, Tensor)]
        if not any(output.requires_grad for output in made):
            return
        if not self.is_reduced(data):
            fused = func in _FUSED and made[0].ndim == 0
            if fused:
                self._hook_fused(func, args, kwargs, made[0])
            elif not self.watching:
                return
            elif self._weights(func, args, data) or any(not self._is_per_sample(output) for output in made):
                for tensor in data:
                    if tensor.requires_grad:
                        self._hook(tensor)
            else:
                self._note_scaled(func, data, made[0])
                return
        for output in made:
            output._homing_reduced = self._reduced  # type: ignore[attr-defined]

    def factors(self) -> Tensor:
        """The factors, fp32 or fp64 [batch], of the one backward pass that was seen.

        Raises:
            AlignmentError: None was seen, or several, or the losses were not found.
        """
        if len(self._fired) == 1:
            return self._fired[0]
        if not self._fired and not self._candidates:
            raise AlignmentError(
                "no per-sample losses were found in this step; name them: losses = alignment.losses(losses)"
            )
        if not self._fired:
            raise AlignmentError("no backward pass was seen; call values() after loss.backward() inside observe()")
        raise AlignmentError(
            f"{len(self._fired)} backward passes went through per-sample losses in one observed step: run one backward "
            "per observe(); if the loss is a sum of several terms, add them per sample first, and name the sum: "
            "losses = alignment.losses(losses)"
        )

    def _is_per_sample(self, tensor: Tensor) -> bool:
        return tensor.ndim > 0 and tensor.shape[0] == self.batch

    def _weights(self, func: Callable[..., Any], args: tuple[Any, ...], data: list[Tensor]) -> bool:
        """Whether the call multiplies per-sample losses by per-sample constants."""
        learned = [tensor for tensor in data if tensor.requires_grad]
        if func not in _WEIGHTINGS or len(learned) != 1 or not _is_column(learned[0]):
            return False
        others = [a for a in args if isinstance(a, Tensor) and a is not learned[0]]
        return any(other.numel() > 1 or other.ndim > 0 for other in others)

    def _note_scaled(self, func: Callable[..., Any], data: list[Tensor], made: Tensor) -> None:
        """A number times the losses: undone if they are reduced next, kept if it is part of a sum of terms."""
        if func in _WEIGHTINGS and len(data) == 1 and _is_column(data[0]):
            self._scaled[id(made)] = made, self._unscaled(data[0])

    def _unscaled(self, losses: Tensor) -> Tensor:
        return self._scaled.get(id(losses), (losses, losses))[1]

    def _hook(self, losses: Tensor) -> None:
        losses = self._unscaled(losses)
        if id(losses) not in self._candidates:
            self._candidates[id(losses)] = losses
            self._hooks.append(losses.register_hook(self._lift))  # type: ignore[no-untyped-call]

    def _lift(self, gradient: Tensor) -> Tensor:
        if not _is_column(gradient):
            raise AlignmentError(
                f"the samples of the batch are mixed while the loss still has the shape {tuple(gradient.shape)}; "
                "reduce it to one number per sample first, and name them: losses = alignment.losses(losses)"
            )
        double = gradient.dtype == torch.float64
        size = gradient.detach().abs()
        largest = size.max()
        floor = torch.where(largest > 0, largest, torch.ones_like(largest)) * 2.0 ** (-80 if double else -40)
        lifted = torch.where(size < floor, floor, gradient)
        self._fired.append(lifted.detach().flatten().to(torch.float64 if double else torch.float32))
        return lifted

    def _hook_fused(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], total: Tensor
    ) -> None:
        """Losses reduced in the call that makes them: the factors are known from its reduction."""
        if (
            kwargs.get("weight") is not None
            or kwargs.get("pos_weight") is not None
            or any(a is not None for a in args[2:])
        ):
            raise AlignmentError(
                f'{func.__name__} with class weights reduces the batch itself; pass reduction="none" and reduce after'
            )
        target = args[1] if len(args) > 1 else kwargs["target"]
        count = torch.full((), float(self.batch or 1), device=total.device)
        if kwargs.get("reduction", "mean") == "sum":
            count = torch.ones_like(count)
        elif not target.is_floating_point():
            count = (target != kwargs.get("ignore_index", -100)).sum()
        self._candidates[id(total)] = total
        batch = self.batch or 1

        def note(gradient: Tensor) -> None:
            self._fired.append((gradient.detach() / count).expand(batch))

        self._hooks.append(total.register_hook(note))  # type: ignore[no-untyped-call]

    def let_go(self) -> None:
        """Remove the hooks and forget the tensors after the backward pass.

        The losses hold their graph, and its hooks hold this: a circle through autograd that Python's collector cannot
        see, and that would keep every observed step for ever.
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._scaled.clear()
        self._candidates = dict.fromkeys(self._candidates)


def _is_column(tensor: Tensor) -> bool:
    """One number per sample: [batch] or [batch, 1]."""
    return tensor.ndim >= 1 and tensor.numel() == tensor.shape[0]
