"""`model/`: opens with `timm.create_model("local-dir:…", pretrained=True)`, safetensors only, with a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models._hub import save_for_hf
from torch import nn

from homing.models.saved import MULTI_LABEL
from homing.outputs.artefact import folder_whole

PARTS = ("config.json", "model.safetensors")


def save_model(
    folder: Path,
    model: nn.Module,
    *,
    classes: Sequence[str],
    model_args: Mapping[str, Any],
    data_config: Mapping[str, Any],
    card: str,
    temperature: float | None = None,
    is_multi_label: bool = False,
) -> None:
    """Write the model folder, whole or not at all.

    Args:
        folder: Where it exists its files of these names are replaced, and others stay.
        model: A timm model on any device.
        classes: Names of its outputs.
        model_args: What timm.create_model needs to build it again.
        data_config: timm's preprocessing.
        card: Text of README.md.
        temperature: What logits are divided by before they become probabilities; a key of its own in `config.json`,
            which timm passes over. The weights are as trained.
        is_multi_label: Whether an image may be of several classes.
    """
    task = {"problem_type": MULTI_LABEL} if is_multi_label else {}
    with folder_whole(folder, into_existing=True) as unfinished:
        save_for_hf(
            model,
            str(unfinished),
            model_config={"label_names": list(classes), **task}
            | ({} if temperature is None else {"temperature": temperature}),
            model_args={key: value for key, value in model_args.items() if key != "num_classes"},
            data_config=dict(data_config),
            safe_serialization=True,
        )
        (unfinished / "README.md").write_text(card, encoding="utf-8")


def link_model(whole: Path, folder: Path, card: str) -> None:
    """Give a model folder a second place: the same files under two names, copies where there are no such links.

    Args:
        whole: Holds the model.
        folder: The second place; as for `save_model`.
        card: Text of its README.md.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_whole(folder, into_existing=True) as unfinished:
        for name in PARTS:
            try:
                os.link(whole / name, unfinished / name)
            except OSError:
                shutil.copyfile(whole / name, unfinished / name)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
