"""What `predict` and `evaluate` are given: the folder of a finished run, or of a model that `homing export` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from homing.errors import RecipeError
from homing.models.onnx_model import OnnxModel, open_onnx
from homing.models.saved import SavedModel, open_model
from homing.outputs.kept_models import model_of
from homing.outputs.run_kinds import check_has_model
from homing.recipe.data import Data
from homing.recipe.reading import recipe_of_run
from homing.recipe.schema import Training

Predictor = SavedModel | OnnxModel


@dataclass(frozen=True)
class Habits:
    """How images are read for a model.

    Attributes:
        max_pixels: A larger picture counts as bad.
        workers: Threads that decode.
        drops_bad: Whether images that cannot be read are left out of a measurement.
        seed: Of what is drawn for intervals.
    """

    max_pixels: int = Data.model_fields["max_pixels"].default
    workers: int | None = Training.model_fields["workers"].default
    drops_bad: bool = False
    seed: int = 0


def open_predictor(folder: Path, device: str | None = None, method: str | None = None) -> tuple[Habits, Predictor]:
    """The model of a finished run, prepared as the run did, or one that was exported.

    Args:
        folder: Of a run, or of `homing export`, timm or onnx.
        device: Such as cpu or cuda:1; the first GPU where there is one, else the CPU.
        method: Whose model of a run; the one that it ships where not given.

    Raises:
        RecipeError: There is no such device, no package for ONNX, or no model of that method.
        DataError: The folder holds no model, or a damaged one.
    """
    place = _device(device)
    exported = [name for name in ("model.onnx", "config.json") if (folder / name).is_file()]
    if exported and method is not None and not (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder}: --method {method} is of a run's models, and this is an exported one; leave it out"
        )
    if not (folder / "recipe.yaml").exists():
        if (folder / "model.onnx").is_file():
            return Habits(), open_onnx(folder, place)
        if (folder / "config.json").is_file():
            return Habits(), open_model(folder, device=place)
    check_has_model(folder)
    recipe = recipe_of_run(folder)
    habits = Habits(recipe.data.max_pixels, recipe.training.workers, recipe.data.on_bad_image == "drop", recipe.seed)
    return habits, open_model(model_of(folder, method), device=place, precision=recipe.training.precision)


def _device(name: str | None) -> torch.device:
    """The device of a name.

    Raises:
        RecipeError: There is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # it is there, and holds numbers
    except Exception as error:  # torch raises many kinds
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise RecipeError(f"--device {name!r}: there is no such device here; there is {', '.join(here)}") from error
    return device
