"""Whether the last stage of a model can be trained on activations that are kept, and where these lie."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from homing.models.activations import Activations
from homing.models.cut import CannotCut, cut_of
from homing.models.inputs import ImageInputs
from homing.outputs.artefact import under_other_name
from homing.session import Session
from homing.training.distributed import on_main

_IMAGES = 2


@dataclass(frozen=True)
class Keeping:
    """How activations are kept. Names as in the recipe.

    Attributes:
        views: Augmented ones of each image, beside the centre; 0: none are kept.
        augments: Whether training pictures are augmented; without, there is no view but the centre.
        features: float32 or float16.
        max_bytes: For all of them; what does not fit is fewer views.
        precision: Of the model.
        batch_norm: Of the training.
        mixup: Of the training.
    """

    views: int
    augments: bool
    features: str
    max_bytes: int
    precision: str
    batch_norm: str = "frozen"
    mixup: float = 0.0


def keep_activations(
    session: Session, model: nn.Module, pictures: ImageInputs, folder: Path, keeping: Keeping
) -> Activations | None:
    """What the frozen trunk of a model makes of pictures, computed as it is asked for.

    Nothing that this depends on changes from one attempt at a run to the next, or with the number of processes.

    Args:
        session: Says so where they are not kept, or fewer than wanted.
        model: The pristine model.
        pictures: By row.
        folder: On whose disk they are kept.
        keeping: How.

    Returns:
        None where nothing is kept: every visit goes through the whole model then.
    """
    if not keeping.views:
        return None
    try:
        return _kept(session, model, pictures, folder, keeping)
    except CannotCut as error:
        session.progress.say(f"the last stage is trained on pictures anew at every visit: {error}")
        return None


def _kept(session: Session, model: nn.Module, pictures: ImageInputs, folder: Path, keeping: Keeping) -> Activations:
    if keeping.mixup:
        raise CannotCut("training.mixup mixes pictures")
    if keeping.batch_norm == "train":
        raise CannotCut("with training.batch_norm: train its frozen layers do not stand still")
    size = pictures.preprocessing.size
    images = torch.randn(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0)).to(session.device)
    images = images.contiguous(memory_format=torch.channels_last)
    cut = cut_of(model, images, keeping.precision)
    wanted = keeping.views if keeping.augments else 0
    one_view = len(pictures.images) * math.prod(cut.shape) * np.dtype(keeping.features).itemsize
    views = min(wanted, keeping.max_bytes // one_view - 1)
    if views < wanted:
        about = f"one view of {len(pictures.images):,} images takes {one_view / 1e9:.3g} GB"
        of = f"output.cache_gb ({keeping.max_bytes / 1e9:g})"
        if views < min(wanted, 1):  # the centre alone would be no augmentation at all
            raise CannotCut(f"{about}, too much for {of}; output.features: float16 halves it")
        session.progress.say(f"training.views: {views} of {wanted} are kept: {about}, and {of} is the limit")
    accelerator = session.accelerator
    return Activations(
        cut,
        model,
        pictures,
        _file_in(folder, accelerator),
        views=views,
        dtype=keeping.features,
        precision=keeping.precision,
        shared=accelerator.num_processes > 1,
    )


def _file_in(folder: Path, accelerator: Accelerator) -> IO[bytes]:
    """A file that all processes hold and that has no name any more: it goes with the last of them."""
    if accelerator.num_processes == 1:
        return tempfile.TemporaryFile(dir=folder)
    with ExitStack() as named:

        def made() -> Path:
            path = named.enter_context(under_other_name(folder / "activations"))
            path.touch()
            return path

        file = on_main(accelerator, made).open("r+b")
        accelerator.wait_for_everyone()
    return file
