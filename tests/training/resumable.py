"""Fine-tunings with all that a checkpoint has to hold: a batch-norm model and a vision transformer with drop path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tensor_inputs import small_model

from drawn_pools import draw_pool
from homing.models.backbone import Preprocessing
from homing.models.inputs import ImageInputs
from homing.pools.augmentation import CropFlipColor
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.online import OnlineRates, OnlineSettings
from homing.training.plan import Phase, TrainingPlan
from homing.training.records import Checkpoints, Record
from homing.training.step import Settings

NUM_SOURCE, NUM_TARGET = 27, 6
NUM_STEPS, EPOCH = 16, 5  # 27 + 2 * 6 = 39 visits an epoch, in batches of 8: 5 steps
EVERYTHING = 1_000


def draw(folder: Path) -> Path:
    """The pictures of source and target, in one pool of three classes."""
    return draw_pool(folder, {"cat": 11, "dog": 11, "emu": 11}, size=32)


def resumable(
    kind: str,
    pictures: Path,
    folder: Path,
    *,
    workers: int = 0,
    keep: int = EVERYTHING,
    every: int = 1,
    num_steps: int = NUM_STEPS,
    resume: bool = True,
    learning_rate: float = 0.01,
    average_last: float = 0.0,
    order: list[int] | None = None,
    target_share: float = 0.0,
    **more,
) -> FineTuning:
    """A fine-tuning over real files.

    Args:
        kind: `bn` (statistics of batch norms move), `vit` (drop path; rates are learned online) or `still` (a vision
            transformer without anything random, the same for any number of processes).
        pictures: From `draw`.
        folder: For checkpoints and metrics.
        workers: Threads that decode.
        keep: Checkpoints kept.
        every: Steps between them.
        num_steps: Of the training.
        resume: Whether to go on from what is in the folder.
        learning_rate: Peak.
        average_last: Share of the last phase's steps whose weights are averaged; 0: an exponential average of all.
        order: Rows of the pool that are the source, in this order; default: the first 27.
        target_share: Share of the steps, the last ones, that train on the target alone.
        more: For `Checkpoints`.
    """
    pool = read_pool(PoolSpec(path=str(pictures)))
    spread = np.random.default_rng(0).permutation(len(pool))  # so that source and target hold all classes
    rows = np.concatenate([spread[:NUM_SOURCE] if order is None else spread[order], spread[-NUM_TARGET:]])
    num_source = len(rows) - NUM_TARGET
    accelerator = Accelerator(cpu=True)
    images = Images(pool.store, pool.rows[rows], [pool.ids[row] for row in rows], canvas=40, workers=workers)
    inputs = ImageInputs(
        images,
        Preprocessing(32, 40, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        CropFlipColor(),
        seed=1,
        device=accelerator.device,
    )
    labels = torch.from_numpy(pool.label_indices(pool.classes)[rows])
    online = None
    if kind != "bn":
        guide = Guide(inputs, labels, num_source, accelerator, batch_size=4, refresh_every=4)
        online = OnlineRates(OnlineSettings(observe_every=3), Observer(guide), 3)
    model = (
        small_model("test_resnet")
        if kind == "bn"
        else small_model("test_vit", img_size=32, drop_path_rate=0.2 if kind == "vit" else 0.0)
    )
    phases = [Phase(torch.linspace(0.5, 1.5, num_source), 2.0, share=1 - target_share)]
    if target_share:
        phases.append(Phase(torch.zeros(num_source), 1.0, share=target_share))
    plan = TrainingPlan(phases, "sample", online=online is not None)
    folder.mkdir(parents=True, exist_ok=True)
    return FineTuning(
        model,
        inputs,
        labels,
        plan,
        Settings(
            num_steps=num_steps,
            batch_size=8,
            optimizer="adamw" if kind != "still" else "momentum",
            learning_rate=learning_rate,
            batch_norm="train" if kind == "bn" else "frozen",
            ema=None if average_last else 0.9,
            average_last=average_last,
        ),
        accelerator,
        online=online,
        checkpoints=Checkpoints(folder / "checkpoints", every, keep, {"recipe": kind}, resume, **more),
        record=Record(folder / "metrics.jsonl", kind, 1, writes=accelerator.is_main_process),
        names=lambda row: pool.ids[rows[row]],
    )


def left_by(folder: Path, step: int = NUM_STEPS) -> dict[str, bytes]:
    """All bytes of the checkpoint of a step, and the rows of metrics but for the time they took."""
    found = {path.name: path.read_bytes() for path in (folder / "checkpoints" / f"step-{step:06d}").iterdir()}
    state = json.loads(found.pop("state.json"))
    del found["manifest.json"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    return found | {"state": json.dumps(state).encode(), "metrics": json.dumps(rows).encode()}
