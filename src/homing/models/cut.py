"""A model cut in two: a frozen trunk, and the tail behind it that is trained, over the very same parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from homing.models.parts import autocast, classifiers_of, last_stage_names, set_training_mode

_POSITIONS = "_pos_embed"
"""How timm's plain transformers add positions and the class token, in front of all of their blocks."""


class CannotCut(ValueError):
    """Why a model has no trunk whose outputs could be kept."""


@dataclass(frozen=True)
class Cut:
    """Where a model is cut.

    Attributes:
        place: Name of the first module of the tail; what goes into it is the activation.
        front: Names of the modules that the trunk is made of.
        axes: Of activations, in the order in which they lie in memory; the first is that of the images.
        shape: Of the activations of one image, in that order.
    """

    place: str
    front: tuple[str, ...]
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    @torch.inference_mode()
    def activations(self, model: nn.Module, images: Tensor, precision: str) -> Tensor:
        """What the trunk of a model in evaluation mode makes of images [B, 3, S, S]; float32 [B, ...]."""
        reached: list[Tensor] = []

        def stop(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if len(inputs) != 1 or named or not isinstance(inputs[0], Tensor):
                raise CannotCut("its last stage takes more than one tensor")
            reached.append(inputs[0])
            raise _Reached

        handle = model.get_submodule(self.place).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with autocast(images.device, precision):
                model(images)
        except _Reached:
            return reached[0].float()
        finally:
            handle.remove()
        raise CannotCut("its last stage is never reached")

    def tail(self, model: nn.Module) -> nn.Module:
        """The same model without its trunk: from activations to logits.

        It holds the model's own modules and parameters under their own names, timm's methods among them.
        """
        tail = _replaced(model, "", self)
        if hasattr(tail, _POSITIONS):
            setattr(tail, _POSITIONS, _unchanged)
        return tail


class _Reached(Exception):
    """No error: the trunk is done."""


class _Through(nn.Module):
    """Stands where a module of the trunk stood."""

    def forward(self, activations: Tensor, *_: Any, **__: Any) -> Tensor:
        return activations


def _unchanged(activations: Tensor) -> Tensor:
    return activations


def _replaced(module: nn.Module, name: str, cut: Cut) -> nn.Module:
    """A shallow copy of a module on the way to the cut, with what is in front of it replaced."""
    chosen = copy.copy(module)
    chosen._modules = dict(module._modules)
    for key, child in module.named_children():
        inner = f"{name}.{key}" if name else key
        if inner in cut.front:
            chosen._modules[key] = _Through()
        elif cut.place.startswith(f"{inner}."):
            chosen._modules[key] = _replaced(child, inner, cut)
    return chosen


def cut_of(model: nn.Module, images: Tensor, precision: str = "fp32") -> Cut:
    """Where a timm model is cut so that its last stage is trained on what its trunk made of pictures once.

    Args:
        model: On the device of the images.
        images: A few, of any content, [B, 3, S, S].
        precision: fp32 or bf16.

    Raises:
        CannotCut: It has no such place, or tail and trunk together are not the model to the last bit.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        cut = _placed(model, images, precision)
        seen = cut.activations(model, images, precision)
        tail = cut.tail(model)
        with torch.inference_mode(), autocast(images.device, precision):
            whole, ours = model(images), _tried(tail, seen.clone())
        if whole.shape != ours.shape or not torch.equal(whole, ours):
            raise CannotCut("its last stage sees more than what the stage before it gives")
        set_training_mode(model, "frozen")
        before = _chance(images.device)
        again = cut.activations(model, images, precision)
        if not torch.equal(again, seen) or not torch.equal(_chance(images.device), before):
            raise CannotCut("chance plays a part in its frozen layers (dropout or drop path)")
    finally:
        for module, mode in training.items():
            module.training = mode
    axes = (0, *sorted(range(1, seen.ndim), key=seen.stride, reverse=True))
    return replace(cut, axes=axes, shape=tuple(seen.permute(axes).shape[1:]))


def _chance(device: torch.device) -> Tensor:
    """The state of the generator of random numbers that layers on a device draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _tried(tail: nn.Module, activations: Tensor) -> Tensor:
    try:
        logits = tail(activations)
    except Exception as error:  # whatever a model expects of a trunk that is not there
        raise CannotCut("its layers are not called one behind the other") from error
    if not isinstance(logits, Tensor):
        raise CannotCut("it has more than one output")
    return logits


def _placed(model: nn.Module, images: Tensor, precision: str) -> Cut:
    """The first module called that holds trained parameters alone, and the outermost modules called before it."""
    trained = set(last_stage_names(model))
    heads = {parameter for part in classifiers_of(model) for parameter in part.parameters()}
    trained |= {name for name, parameter in model.named_parameters() if parameter in heads}
    called = _called(model, images, precision)
    holds = {name: _under(name, model) for name in called}
    place = next((name for name in called if holds[name] and holds[name] <= trained), None)
    if place is None:
        raise CannotCut("none of its modules holds what is trained, and nothing else")
    front: list[str] = []
    for name in called[: called.index(place)]:
        if name and not place.startswith(f"{name}.") and not name.startswith(tuple(f"{one}." for one in front)):
            front.append(name)
    behind = {name for one in called[called.index(place) :] for name in holds[one]}
    if trained - behind or any(holds[name] & trained for name in front):
        raise CannotCut("some of what is trained lies in front of its last stage, or beside it")
    return Cut(place, tuple(front))


def _called(model: nn.Module, images: Tensor, precision: str) -> list[str]:
    """Names of the modules of a model, each as it is called for the first time."""
    order: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: order.setdefault(name)

    handles = [module.register_forward_pre_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.inference_mode(), autocast(images.device, precision):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def _under(name: str, model: nn.Module) -> set[str]:
    return {f"{name}.{inner}" if name else inner for inner, _ in model.get_submodule(name).named_parameters()}
