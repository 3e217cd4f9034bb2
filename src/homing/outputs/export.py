"""`homing export`: the model of a finished run as a folder for use elsewhere."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from homing.errors import DataError, RecipeError
from homing.outputs.artefact import folder_whole, write_json
from homing.outputs.facts import Asked
from homing.outputs.kept_models import card_of, model_of
from homing.outputs.narrow import TOLERANCES, DType, check_narrow, narrow_onnx, narrow_weights
from homing.outputs.ownership import check_no_part_of_a_run
from homing.outputs.pool_paths import check_output
from homing.outputs.run_folder import pools_of
from homing.outputs.run_kinds import OF_ONE_TARGET, check_has_model, results_of
from homing.recipe.reading import recipe_of_run

if TYPE_CHECKING:
    from torch import nn

    from homing.models.saved import SavedModel

TOLERANCE = 1e-4
"""Largest difference of a logit between torch and onnxruntime, in units of the largest logit (at least 1)."""


def export_model(
    run: Path,
    form: Literal["timm", "onnx"],
    output: Path,
    *,
    licence: str | None = None,
    dtype: DType = "float32",
    method: str | None = None,
) -> None:
    """Write the model of a run into a new folder, whole or not at all.

    Args:
        run: Folder of a finished run.
        form: timm (config.json, model.safetensors) or onnx (model.onnx); each with preprocess.py, preprocessing.json
            and README.md.
        output: Folder to make.
        licence: Named in the model card.
        dtype: Of the weights that are written.
        method: Whose model; the one that the run ships where not given.

    Raises:
        RecipeError: The output exists, touches a pool or is a part of a run, packages for ONNX are missing, it has no
            such dtype, or no such model is kept.
        DataError: The run is not finished or damaged, the backbone cannot be written as ONNX, or
            onnxruntime does not come to the model's own logits.
    """
    if output.exists():
        raise RecipeError(f"{output}: exists already; give a folder that does not")
    check_no_part_of_a_run(output)
    if form == "onnx" and (missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if not find_spec(name)]):
        raise RecipeError(f"--format onnx needs {', '.join(missing)}: pip install 'homing[onnx]'")
    if (form, dtype) == ("onnx", "bfloat16"):
        raise RecipeError("--dtype bfloat16: onnxruntime lacks it on most devices; take float16, or --format timm")
    check_has_model(run)
    recipe, results, model = recipe_of_run(run), results_of(run, OF_ONE_TARGET), model_of(run, method)
    check_output(output, pools_of(recipe))
    card = card_of(results, Asked.of(recipe), method, form=form, licence=licence, place=output.name)
    with folder_whole(output) as folder:
        if form == "timm":
            _copy_timm(model, folder, dtype)
        else:
            _write_onnx(model, folder, dtype)
        (folder / "README.md").write_text(card, encoding="utf-8")


def _copy_timm(model: Path, folder: Path, dtype: DType) -> None:
    from homing.models.saved import open_model

    saved = open_model(model)  # a damaged folder is not passed on
    _write_preprocessing(saved, folder)
    shutil.copyfile(model / "config.json", folder / "config.json")
    if dtype == "float32":
        shutil.copyfile(model / "model.safetensors", folder / "model.safetensors")
    else:
        narrow_weights(model / "model.safetensors", folder / "model.safetensors", dtype)
        check_narrow(saved, open_model(folder), dtype)


def _write_preprocessing(saved: SavedModel, folder: Path) -> dict[str, Any]:
    """How a picture becomes the model's input: numbers, and a script that does it."""
    from homing.outputs.preprocessing import SCRIPT, preprocessing_script

    sizes = {"size": saved.preprocessing.size, "canvas": saved.preprocessing.canvas}
    task = {"task": "multi_label"} if saved.is_multi_label else {}
    described = {
        "classes": list(saved.classes),
        **task,
        "temperature": saved.temperature,
        **saved.preprocessing.data_config(),
        **sizes,
    }
    write_json(folder / "preprocessing.json", described)
    (folder / SCRIPT).write_text(preprocessing_script(), encoding="utf-8")
    return described


def _write_onnx(model: Path, folder: Path, dtype: DType) -> None:
    import torch

    from homing.models.saved import open_model

    saved = open_model(model)
    network = saved.model.to(memory_format=torch.contiguous_format)
    described = _write_preprocessing(saved, folder)
    try:
        program = _onnx_program(network, saved.preprocessing.size)
    except Exception as error:  # the exporter has many ways to fail, with hundreds of lines each
        raise DataError(
            f"this backbone cannot be written as ONNX ({_reason(error)}); nothing was written. Take --format timm,"
            " or train another backbone"
        ) from error
    program.model.metadata_props.update(
        {"classes": json.dumps(described["classes"]), "preprocessing": json.dumps(described)}
    )
    program.save(str(folder / "model.onnx"), external_data=False)
    if dtype == "float16":
        narrow_onnx(folder / "model.onnx")
    _check_onnx(
        folder / "model.onnx", network, saved.preprocessing.size, None if dtype == "float32" else TOLERANCES[dtype]
    )


def _onnx_program(network: nn.Module, size: int) -> Any:
    """The model as ONNX, for any number of pictures."""
    import torch

    for module in network.modules():
        if hasattr(module, "fused_attn"):  # the exporter cannot take apart what is fused, where the batch is free
            module.fused_attn = False  # type: ignore[assignment]
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, size, size),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    return program


def _reason(error: BaseException) -> str:
    """The line of an exporter's report that says what is wrong; its first cause where there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}"


def _check_onnx(path: Path, network: Any, size: int, tolerance: float | None = None) -> None:
    """Hold onnxruntime against torch, for batches of one and of three."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3):
        images = torch.randn(count, 3, size, size, generator=generator)
        with torch.inference_mode():
            ours = network(images)
        theirs = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        off = float((ours - theirs).abs().max() / max(1.0, float(ours.abs().max())))
        if not off <= (allowed := TOLERANCE if tolerance is None else tolerance):
            raise DataError(
                f"onnxruntime is off by {off:.1e} (allowed: {allowed:g}), so nothing was written; take --dtype float32,"
                " or report the backbone"
            )
