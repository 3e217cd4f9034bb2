"""A value that is not finite, wherever it comes from, stops the training before the update, and is told."""

from __future__ import annotations

import importlib
import json
import math

import pytest
import torch
from tensor_inputs import NUM_CLASSES, NUM_SOURCE, TensorInputs, fine_tuning, pictures_and_labels, small_model
from torch import nn

from homing.errors import DivergedError
from homing.flow import run
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.online import OnlineRates, OnlineSettings
from homing.training.plan import Phase, TrainingPlan
from homing.training.step import Settings
from small_run import draw_problem, small_recipe

OBSERVED, UNOBSERVED = 6, 7  # observe_every: 3


class Poisoned(TensorInputs):
    """Real pictures, until a step comes to be poisoned."""

    poisoned = False

    def training(self, visits):
        for visit in visits:
            tensors = self.pictures[torch.from_numpy(visit.rows)].clone()
            if self.poisoned:
                tensors[1] = math.nan
            yield tensors

    def evaluating(self, batches):
        return (tensors * (math.nan if self.poisoned else 1.0) for tensors in super().evaluating(batches))


def tuning_with(value: float = math.nan) -> FineTuning:
    """A fine-tuning that learns rates online."""
    pictures, labels = pictures_and_labels()
    tuning = fine_tuning(small_model(), _plan(), Settings(num_steps=12, batch_size=8, learning_rate=0.01))
    inputs = Poisoned(pictures)
    observer = Observer(Guide(inputs, labels, NUM_SOURCE, tuning.accelerator, batch_size=4, refresh_every=OBSERVED))
    online = OnlineRates(OnlineSettings(observe_every=3), observer, NUM_CLASSES)
    return FineTuning(
        tuning.raw_model, inputs, labels, _plan(), tuning.settings, tuning.accelerator, online=online,
        names=lambda row: f"picture-{row}",
    )  # fmt: skip


def _plan() -> TrainingPlan:
    return TrainingPlan((Phase(torch.ones(NUM_SOURCE), 2.0),), "weight", online="instance")


def _image(tuning, value):
    tuning.inputs.poisoned = True


def _loss(tuning, value):
    real = tuning.forward

    def forward(tensors, labels):
        logits, losses = real(tensors, labels)
        return logits, losses + torch.tensor([0.0] * (len(losses) - 1) + [value])

    tuning.forward = forward


def _gradient(tuning, value):
    tuning.trained[3].register_hook(lambda gradient: gradient * value)


def _direction(tuning, value):
    averages = tuning.online.observer.guide.direction._averages
    next(iter(averages.values())).view(-1)[0] = value


def _alignment(tuning, value):
    alignment = tuning.online.observer.alignment
    real = alignment._current

    def current():
        step = real()
        step._accumulator.total[2] = value
        return step

    alignment._current = current


def _rate(tuning, value):
    tuning.online.table._state["rate"].fill_(value)


SOURCES = {"image": _image, "loss": _loss, "gradient": _gradient, "rate": _rate}
OF_OBSERVED_STEPS = {"direction": _direction, "alignment": _alignment}
CASES = [
    *((kind, step) for kind in SOURCES for step in (OBSERVED, UNOBSERVED)),
    *((kind, OBSERVED) for kind in OF_OBSERVED_STEPS),
]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("kind", "step"), CASES)
def test_it_stops_before_the_update_wherever_it_comes_from(kind, step, value):
    tuning = tuning_with(value)
    before, refresh = {}, tuning.refresh_direction

    def now() -> dict[str, torch.Tensor]:
        online = tuning.online.table.state_dict() if kind != "rate" else {}
        return {n: t.clone() for n, t in [*tuning.raw_model.state_dict().items(), *online.items()]}

    def refreshed(batch):  # the first call of a step
        if tuning.step == step and not before:
            before.update(now())
            if kind not in OF_OBSERVED_STEPS:
                (SOURCES | OF_OBSERVED_STEPS)[kind](tuning, value)
        refresh(batch)
        if tuning.step == step and kind in OF_OBSERVED_STEPS:
            OF_OBSERVED_STEPS[kind](tuning, value)

    tuning.refresh_direction = refreshed
    with pytest.raises(DivergedError, match="not finite") as told:
        tuning.run()
    assert tuning.step == step
    assert f"step {step + 1}: " in str(told.value)
    assert {name for name, tensor in now().items() if not torch.equal(before[name], tensor)} == set()
    assert told.value.details["samples"]
    assert len(told.value.details["losses_before"]) == step
    json.dumps(told.value.details)


def test_rates_that_are_not_finite_draw_no_epoch():
    rates = torch.ones(NUM_SOURCE)
    rates[5] = math.nan
    for apply in ("sample", "weight"):
        tuning = fine_tuning(small_model(), TrainingPlan((Phase(rates, 2.0),), apply), Settings(num_steps=3))
        with pytest.raises(DivergedError, match="rates of source samples are not finite"):
            tuning.run()
        assert tuning.step == 0


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


def test_features_that_are_not_finite_are_no_descriptors(problem, tmp_path, monkeypatch):
    """Weights that overflow: the run stops with the samples' names, before any rate is learned."""
    module = importlib.import_module("homing.preparing")
    real = module.build_model

    def overflowing(*arguments, **settings):
        model, *rest = real(*arguments, **settings)
        with torch.no_grad():
            next(module for module in model.modules() if isinstance(module, nn.Conv2d)).weight.fill_(1e38)
        return model, *rest

    monkeypatch.setattr(module, "build_model", overflowing)
    with pytest.raises(DivergedError, match=r"features of \d+ of 72 samples are not finite, first bar/000\.png"):
        run(small_recipe(problem), tmp_path / "run", quiet=True)
    told = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert told["what"] == "features"
    assert len(told["samples"]) > 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_descriptors_that_are_not_finite_give_no_rates(problem, tmp_path, monkeypatch):
    import homing.evaluation.planning as planning

    real = planning.learn_rates

    def damaged(*arguments, **settings):
        plan = real(*arguments, **settings)
        next(iter(plan.descriptors.values()))[3] = math.nan
        return plan

    monkeypatch.setattr(planning, "learn_rates", damaged)
    with pytest.raises(DivergedError, match=r"target_likeness of 1 of 42 samples are not finite, first bar/003\.png"):
        run(small_recipe(problem), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "divergence.json").exists()


def test_a_run_that_goes_on_and_ends_leaves_no_divergence_behind(problem, tmp_path):
    recipe = small_recipe(problem, "training.steps=3", "rates.method=uniform")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(recipe.to_yaml())
    (tmp_path / "run" / "divergence.json").write_text("{}")
    run(recipe, tmp_path / "run", resume=True, quiet=True)
    assert not (tmp_path / "run" / "divergence.json").exists()
