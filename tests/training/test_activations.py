"""The last stage trained on what the frozen trunk made of pictures once."""

from __future__ import annotations

import copy
import re

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
from homing.recipe.data import PoolSpec
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


def activations_of(pool, folder, **changed) -> Activations:
    model = small_model("test_efficientnet").to(memory_format=torch.channels_last)
    return kept(model, pictures_of(pool, CropFlipColor()), folder, augments=True, **changed)


def test_a_visit_sees_the_same_whatever_else_was_asked_for_before(pool, tmp_path):
    """To the last bit: what a resumed training computes anew is what the first attempt had kept."""
    visits = [
        Visit(1, np.array([3, 9, 20]), np.array([0, 1, 4])),
        Visit(2, np.array([9, 3]), np.array([0, 0])),
        Visit(2, np.arange(33), np.zeros(33, np.int64)),
    ]
    ours, later = activations_of(pool, tmp_path), activations_of(pool, tmp_path)
    first = list(ours.training(visits))
    for visit, expected in zip(reversed(visits), reversed(first), strict=True):
        assert torch.equal(next(later.training(iter([visit]))), expected)
    whole = next(ours.evaluating([np.arange(33)]))
    assert torch.equal(next(later.evaluating(iter([np.array([32, 0])]))), whole[[32, 0]])
    ours.close()
    later.close()


def test_training_takes_augmented_views_in_turn_and_never_the_centre(pool, tmp_path):
    ours, row = activations_of(pool, tmp_path), np.array([5])
    centre = next(ours.evaluating([row]))
    seen = [next(ours.training([Visit(0, row, row * 0 + copy)])) for copy in range(2 * VIEWS)]
    assert not any(torch.equal(one, centre) for one in seen)
    assert all(torch.equal(seen[copy], seen[copy + VIEWS]) for copy in range(VIEWS))
    assert len({float(one.sum()) for one in seen}) == VIEWS
    for epoch, view in ((1, 0), (2, 1), (3, 1), (4, 2), (2 * VIEWS, 0)):  # two epochs each, of a single copy
        assert torch.equal(next(ours.training([Visit(epoch, row, row * 0)])), seen[view])
    assert torch.equal(next(ours.training([Visit(2, row, row * 0 + 1)])), seen[2])
    augmented = next(ours.pictures.training([Visit(0, row, row * 0)]))
    assert torch.allclose(seen[0], ours.cut.activations(ours.model.eval(), augmented, "fp32"), atol=1e-5)
    ours.close()


def test_each_view_goes_through_the_trunk_once(pool, tmp_path):
    ours, passed = activations_of(pool, tmp_path), []
    handle = ours.model.conv_stem.register_forward_pre_hook(lambda module, inputs: passed.append(len(inputs[0])))
    visits = [Visit(epoch, np.arange(27), np.zeros(27, np.int64)) for epoch in range(8 * VIEWS)]
    assert len(list(ours.training(visits))) == len(visits)
    assert passed == [64, 64]  # 3 views of 27 rows, the last batch filled up
    handle.remove()
    ours.close()


def test_where_the_disk_is_full_the_same_is_computed_anew(pool, tmp_path):
    for features in ("float32", "float16"):
        ours, full = (activations_of(pool, tmp_path, features=features) for _ in range(2))
        full.shelf.is_full = True
        visits = [Visit(1, np.arange(33), np.arange(33) % 5)]
        assert torch.equal(next(ours.training(visits)), next(full.training(visits)))
        assert not full.shelf.has(np.arange(33)).any()
        ours.close()
        full.close()


@pytest.mark.parametrize(
    ("name", "changed", "why"),
    [
        ("test_resnet", {"batch_norm": "train"}, "training.batch_norm: train"),
        ("test_resnet", {"mixup": 0.2}, "training.mixup mixes pictures"),
        ("test_vit_relpos", {}, "its last stage takes more than one tensor"),
        ("test_resnet", {"max_bytes": 1000}, r"output.cache_gb \(1e-06\); output.features: float16 halves it"),
    ],
)
def test_where_nothing_can_be_kept_one_sentence_says_why(pool, tmp_path, name, changed, why):
    said: list[str] = []
    model = small_model(name, **({"img_size": 64} if "vit" in name else {}))
    assert kept(model, pictures_of(pool), tmp_path, said, **changed) is None
    assert len(said) == 1
    assert re.search(f"^the last stage is trained on pictures anew at every visit: .*{why}", said[0])
    assert not list(tmp_path.iterdir())


def test_as_many_views_are_kept_as_the_limit_allows(pool, tmp_path):
    said: list[str] = []
    model, pictures = small_model("test_resnet"), pictures_of(pool, CropFlipColor())
    one_view = len(pool) * 192 * 4 * 4 * 4
    found = {}
    for limit in (1.9, 2.5, 4.1):
        ours = kept(model, pictures, tmp_path, said, augments=True, max_bytes=int(limit * one_view), views=4)
        found[limit] = ours and ours.views
        if ours:
            ours.close()
    assert found == {1.9: None, 2.5: 1, 4.1: 3}
    assert said[1].startswith("training.views: 1 of 4 are kept: one view of 33 images takes")
    assert len(said) == 3
