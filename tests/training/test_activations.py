"""The last stage trained on what the frozen trunk made of pictures once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tensor_inputs import small_model

from drawn_pools import draw_pool
from homing.models.activations import Activations
from homing.models.backbone import Preprocessing
from homing.models.inputs import ImageInputs, Visit
from homing.models.parts import set_trainable
from homing.pools.augmentation import CropFlipColor
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.progress import Progress
from homing.recipe.schema import PoolSpec
from homing.session import Session
from homing.training.activations import Keeping, keep_activations
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.online import OnlineRates, OnlineSettings
from homing.training.plan import Phase, TrainingPlan
from homing.training.reweighting import Reweighting
from homing.training.step import Settings

NUM_SOURCE, NUM_TARGET = 27, 6
VIEWS = 3


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = draw_pool(tmp_path_factory.mktemp("pool"), {"cat": 11, "dog": 11, "emu": 11}, size=64)
    return read_pool(PoolSpec(path=str(folder)))


def pictures_of(pool, augmentation=None) -> ImageInputs:
    images = Images(pool.store, pool.rows, pool.ids, canvas=72)
    preprocessing = Preprocessing(64, 72, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return ImageInputs(images, preprocessing, augmentation, seed=1, device=torch.device("cpu"))


def keeping(**changed) -> Keeping:
    usual = {"views": VIEWS, "augments": False, "features": "float32", "max_bytes": 10**9, "precision": "fp32"}
    return Keeping(**{**usual, **changed})


def kept(model, pictures, folder, said=None, **changed) -> Activations | None:
    progress = Progress(quiet=True)
    if said is not None:
        progress.say = said.append
    session = Session(Accelerator(cpu=True), folder, progress)
    return keep_activations(session, model, pictures, folder, keeping(**changed))


def trained(pool, name: str, folder=None, *, online=None, precision="fp32", augmentation=None, **changed):
    """The weights after some steps, on activations that are kept in a folder, or on pictures."""
    torch.manual_seed(0)
    pristine = small_model(name, **({"img_size": 64} if "vit" in name else {}))
    pristine = pristine.to(memory_format=torch.channels_last)
    pictures = pictures_of(pool, augmentation)
    model = copy.deepcopy(pristine)
    set_trainable(model, "last_stage")
    inputs, part = pictures, model
    if folder is not None:
        inputs = kept(pristine, pictures, folder, precision=precision, augments=augmentation is not None, **changed)
        part = inputs.cut.tail(model)
    labels = torch.from_numpy(pool.label_indices(pool.classes))
    observes = None
    if online is not None:
        observer = Observer(Guide(inputs, labels, NUM_SOURCE, Accelerator(cpu=True), batch_size=4))
        observes = OnlineRates(OnlineSettings(), observer, 3) if online == "instance" else Reweighting(observer, None)
    plan = TrainingPlan((Phase(torch.linspace(0.5, 1.5, NUM_SOURCE), 2.0),), "sample", online=online)
    settings = Settings(12, batch_size=8, learning_rate=0.05, optimizer="momentum", ema=0.9, precision=precision)
    FineTuning(part, inputs, labels, plan, settings, Accelerator(cpu=True), online=observes).run()
    if isinstance(inputs, Activations):
        inputs.close()
    return model.state_dict(), pristine.state_dict()


def difference(ours, theirs, start) -> float:
    """Length of the difference of weights, over that of the way they went."""
    length = [
        sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5
        for one, other in ((ours, theirs), (theirs, start))
    ]
    return length[0] / length[1]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_without_augmentation_the_weights_are_those_of_training_on_pictures(pool, tmp_path, name):
    """But for the rounding of kernels that are chosen by the size of a batch, and of what is kept."""
    pictures, start = trained(pool, name)
    exact, _ = trained(pool, name, tmp_path)
    rounded, _ = trained(pool, name, tmp_path, features="float16")
    assert difference(exact, pictures, start) < 1e-5
    assert 0 < difference(rounded, pictures, start) < 1e-2


@pytest.mark.parametrize("method", ["instance", "l2rw"])
def test_what_is_learned_online_is_the_same(pool, tmp_path, method):
    pictures, start = trained(pool, "test_vit", online=method)
    ours, _ = trained(pool, "test_vit", tmp_path, online=method)
    assert difference(ours, pictures, start) < 1e-4
