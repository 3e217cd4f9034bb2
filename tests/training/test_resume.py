"""A resumed training ends where the uninterrupted one does, byte for byte; what does not fit changes nothing."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from resumable import EPOCH, NUM_STEPS, draw, left_by, resumable
from safetensors.torch import load, save

from homing.errors import CheckpointError
from homing.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

CUTS = {
    "the first step": 1,
    "within an epoch": EPOCH + 2,
    "the last step of an epoch": 2 * EPOCH,
    "the first step of the next": 2 * EPOCH + 1,
    "between two observations": 2 * EPOCH + 3,
    "the last step": NUM_STEPS,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", params=["bn", "vit"])
def whole(request, pictures, tmp_path_factory):
    """A training that saved itself after every step."""
    folder = tmp_path_factory.mktemp(request.param)
    resumable(request.param, pictures, folder).run()
    return request.param, folder


@pytest.mark.parametrize("cut", [NUM_STEPS // 2 - 1, NUM_STEPS // 2, NUM_STEPS // 2 + 1])
def test_a_phase_begins_anew_wherever_the_training_was_cut(pictures, tmp_path, cut):
    resumable("bn", pictures, tmp_path / "whole", target_share=0.5).run()
    name = f"checkpoints/step-{cut:06d}"
    shutil.copytree(tmp_path / "whole" / name, tmp_path / "cut" / name)
    shutil.copy(tmp_path / "whole" / "metrics.jsonl", tmp_path / "cut")
    resumable("bn", pictures, tmp_path / "cut", every=NUM_STEPS, target_share=0.5).run()
    ours, theirs = left_by(tmp_path / "whole"), left_by(tmp_path / "cut")
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_resumed_at_any_step_it_leaves_the_same_bytes(whole, pictures, tmp_path, cut, workers):
    kind, folder = whole
    shutil.copytree(folder / "checkpoints" / f"step-{cut:06d}", tmp_path / "checkpoints" / f"step-{cut:06d}")
    shutil.copy(folder / "metrics.jsonl", tmp_path)  # with rows beyond the cut
    tuning = resumable(kind, pictures, tmp_path, workers=workers, every=NUM_STEPS)
    tuning.run()
    assert tuning.step == NUM_STEPS
    ours, theirs = left_by(folder), left_by(tmp_path)
    assert sorted(ours) == sorted(theirs)
    assert {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "loop.safetensors"} <= set(ours)
    assert ("rates.safetensors" in ours) == (kind == "vit")
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_model_ends_with_the_averaged_weights(whole, pictures, tmp_path):
    kind, folder = whole
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    tuning = resumable(kind, pictures, tmp_path)
    tuning.run()
    saved = load_checkpoint(folder / "checkpoints" / f"step-{NUM_STEPS:06d}").tensors
    moved = 0
    for name, value in tuning.raw_model.state_dict().items():
        assert torch.equal(value, saved["ema"][name])
        moved += not torch.equal(value, saved["model"][name])
    assert moved > 10


def test_the_average_is_that_of_all_steps_with_its_rising_decay(whole):
    kind, folder = whole
    name = {"bn": "conv1.0.weight", "vit": "blocks.0.attn.qkv.weight"}[kind]
    steps = [load_checkpoint(folder / "checkpoints" / f"step-{step:06d}").tensors for step in range(1, NUM_STEPS + 1)]
    name = name if name in steps[0]["model"] else next(key for key in steps[0]["model"] if key.endswith("weight"))
    average = steps[0]["model"][name].double()
    for number, tensors in enumerate(steps[1:], start=1):
        decay = min(0.9, 1 - (1 + number) ** (-2 / 3))
        average = decay * average + (1 - decay) * tensors["model"][name].double()
    torch.testing.assert_close(steps[-1]["ema"][name].double(), average, rtol=1e-5, atol=1e-6)  # fp32 sums


@pytest.mark.parametrize("target_share", [0.0, 0.5])
def test_the_last_weights_of_the_last_phase_are_averaged_all_alike(pictures, tmp_path, target_share):
    settings = {"average_last": 0.5, "target_share": target_share, "keep": 99}
    tuning = resumable("still", pictures, tmp_path / "whole", **settings)
    tuning.run()
    begins = NUM_STEPS - round(0.5 * (NUM_STEPS - round((1 - target_share) * NUM_STEPS) if target_share else NUM_STEPS))
    saved = [tmp_path / "whole" / "checkpoints" / f"step-{step:06d}" for step in range(begins + 1, NUM_STEPS + 1)]
    steps = [load_checkpoint(folder).tensors["model"] for folder in saved]
    assert 1 < len(steps) < NUM_STEPS
    for name, value in tuning.raw_model.state_dict().items():
        mean = torch.stack([step[name].double() for step in steps]).mean(dim=0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    middle = saved[1]  # cut within what is averaged
    shutil.copytree(middle, tmp_path / "cut" / "checkpoints" / middle.name)
    again = resumable("still", pictures, tmp_path / "cut", **settings)
    again.run()
    assert all(
        torch.equal(value, again.raw_model.state_dict()[name]) for name, value in tuning.raw_model.state_dict().items()
    )


def _state(tuning):
    return tuning.state().copied()


def _without(part, name):
    return lambda tensors, state: tensors[part].pop(name)


def _replaced(part, name, value):
    return lambda tensors, state: tensors[part].update({name: value})


MISFITS = {
    "a missing weight": _without("model", "norm.weight"),
    "a weight of another shape": _replaced("model", "head.weight", torch.zeros(4, 64)),
    "an unknown weight": _replaced("model", "evil", torch.zeros(1)),
    "a missing average": lambda tensors, state: tensors.pop("ema"),
    "no optimizer groups": lambda tensors, state: state["optimizer"].update(groups=[]),
    "rates that are not finite": lambda tensors, state: tensors["rates"]["table/rate"].fill_(float("nan")),
    "rates out of bounds": lambda tensors, state: tensors["rates"]["table/rate"].fill_(1e9),
    "a direction of another model": _replaced("rates", "direction/average.evil", torch.zeros(3)),
    "no step": lambda tensors, state: state.pop("step"),
    "no visits": _without("loop", "visits"),
    "no rows": _without("loop", "keys"),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_a_checkpoint_that_does_not_fit_changes_nothing(pictures, tmp_path, misfit):
    """Its digests are right, so that only what it holds can give it away: loaded to the end or not at all."""
    tuning = resumable("vit", pictures, tmp_path / "run", num_steps=2)
    tuning.run()
    good = _state(tuning)
    state = json.loads(json.dumps(good.state))
    tensors = {part: load(save({k: v.contiguous() for k, v in own.items()})) for part, own in good.tensors.items()}
    misfit(tensors, state)
    save_checkpoint(
        tmp_path / "bad" / "checkpoints", 2, Checkpoint(tensors, state | {"identity": {"recipe": "vit"}}), 1
    )
    fresh = resumable("vit", pictures, tmp_path / "bad", num_steps=4)
    before = _state(fresh)
    with pytest.raises(CheckpointError, match=r"step-000002: does not fit this run .*--overwrite"):
        fresh.run()
    after = _state(fresh)
    assert json.dumps(after.state) == json.dumps(before.state)
    for part, own in before.tensors.items():
        assert sorted(own) == sorted(after.tensors[part])
        assert all(torch.equal(own[name], after.tensors[part][name]) for name in own), part
