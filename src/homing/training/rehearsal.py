"""One step on made-up images: what a backbone, an optimizer or this machine refuses is known before the first scan."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from homing.errors import HomingError, RecipeError
from homing.features.forward import feature_width, features_of
from homing.features.scan import check_head_on_features
from homing.memory import total_memory
from homing.models.backbone import Preprocessing
from homing.models.parts import autocast, classifier_of, set_trainable, set_training_mode
from homing.rates.alignment import Alignment
from homing.training.optimizer import optimizer_of
from homing.training.step import Settings, losses_of

_IMAGES = 2


def rehearse_scan(model: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: str) -> None:
    """Put an image through a model, as a scan does.

    Raises:
        RecipeError: It cannot be.
    """
    with _refusing(f"model.backbone: no image of {preprocessing.size} pixels can be put through it"):
        feature_width(model, preprocessing, device, precision)


def rehearse_step(
    model: nn.Module,
    preprocessing: Preprocessing,
    device: torch.device,
    settings: Settings,
    *,
    trainable: str,
    needs_linear_head: bool,
    observed: str | None,
) -> None:
    """Take a step with a copy of a model, as a training does, and add up what a whole batch will take.

    Args:
        model: On the device.
        preprocessing: Of its inputs.
        device: Where it is trained.
        settings: How.
        trainable: all, last_stage or head.
        needs_linear_head: Whether the head is started from a probe, trained alone, or cut down in the end.
        observed: Parameters whose alignments a method looks at: all, last_stage or head; None where none does.

    Raises:
        RecipeError: The step cannot be taken, or a batch takes more memory than the machine has.
    """
    images, tried = _made_up(preprocessing, device), copy.deepcopy(model).eval()
    if needs_linear_head:
        classifier_of(model)
    if trainable == "head":
        with torch.no_grad():
            features = features_of(tried, images, device, settings.precision)
        check_head_on_features(tried, images, features)
        tried, images = classifier_of(tried), features.to(device)
    set_trainable(tried, "all" if trainable == "head" else trainable)
    optimizer = optimizer_of(tried, settings)
    set_training_mode(tried, settings.batch_norm)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), _counted(tried) as kept:
        with _refusing(f"model.backbone: no step can be taken with images of {preprocessing.size} pixels"):
            with autocast(device, settings.precision):
                labels = torch.zeros(len(images), dtype=torch.int64, device=device)
                _, losses = losses_of(tried, images, labels)
            losses.mean().backward()  # type: ignore[no-untyped-call]
        if observed is not None:
            _observe(tried, images, labels, settings, "all" if trainable == "head" else observed)
        with _refusing(f"training.optimizer: no step can be taken with {settings.optimizer!r}"):
            optimizer.step()
    _check_memory(model, tried, optimizer, kept[0] / len(images), settings, device)


def _observe(tried: nn.Module, images: Tensor, labels: Tensor, settings: Settings, scope: str) -> None:
    alignment = Alignment(tried, scope=scope)
    direction = {name: parameter.detach() for name, parameter in tried.named_parameters() if parameter.requires_grad}
    with _refusing("rates.method: alignments cannot be taken with this model.backbone"):
        with alignment.observe(direction), autocast(images.device, settings.precision):
            _, losses = losses_of(tried, images, labels)
            losses.mean().backward()  # type: ignore[no-untyped-call]
        alignment.values()


def _made_up(preprocessing: Preprocessing, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_IMAGES, 3, preprocessing.size, preprocessing.size, generator=generator)
    return images.to(device).contiguous(memory_format=torch.channels_last)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Whatever goes wrong in another's model or optimizer becomes one sentence."""
    try:
        yield
    except HomingError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise RecipeError(f"{what} ({reason}); take another, or another model.image_size") from error


@contextmanager
def _counted(model: nn.Module) -> Iterator[list[int]]:
    """Bytes that autograd keeps for the backward pass besides the parameters; they are there after the block."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = [0]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            kept[0] += storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _check_memory(
    model: nn.Module,
    tried: nn.Module,
    optimizer: torch.optim.Optimizer,
    an_image: float,
    settings: Settings,
    device: torch.device,
) -> None:
    """Whether the weights, the optimizer and a part of a batch fit: less than that no training takes.

    Raises:
        RecipeError: They do not.
    """
    states = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    gradients = (parameter.grad for parameter in tried.parameters() if parameter.grad is not None)
    averages = settings.ema is not None or settings.average_last > 0
    copies = 2 + averages  # the model as it was, as it is trained, and its average
    fixed = copies * _bytes(model.state_dict().values()) + _bytes(gradients) + _bytes(states)
    images = -(-settings.batch_size // settings.accumulate)
    need, there = fixed + an_image * images, total_memory(device)
    if there is not None and need > there:
        raise RecipeError(
            f"training.batch_size: a step takes at least {need / 1e9:,.1f} GB of memory ({images:,} images at once,"
            f" {an_image / 1e6:,.1f} MB each; model and optimizer {fixed / 1e9:,.1f} GB), and {device.type} has"
            f" {there / 1e9:,.1f} GB; lower training.batch_size, or raise training.accumulate"
        )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
