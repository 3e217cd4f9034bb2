"""L2RW and Meta-Weight-Net inside the training loop."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from test_online import NUM_CLASSES, NUM_SOURCE, WIDTH, corrupt_problem
from torch import nn

from homing.models.inputs import FeatureInputs
from homing.rates.online.reweighting import WeightNet
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.plan import Phase, TrainingPlan
from homing.training.reweighting import Reweighting
from homing.training.step import Settings

METHODS = ("l2rw", "meta_weight_net")


def tune(method: str, num_steps: int, accumulate: int = 1) -> FineTuning:
    features, labels, _ = corrupt_problem()
    accelerator = Accelerator(cpu=True)
    inputs = FeatureInputs(features, accelerator.device)
    torch.manual_seed(0)
    net = WeightNet() if method == "meta_weight_net" else None
    observer = Observer(Guide(inputs, labels, NUM_SOURCE, accelerator, batch_size=15))
    plan = TrainingPlan((Phase(torch.ones(NUM_SOURCE), 2.0),), "weight", online=method)
    settings = Settings(num_steps, batch_size=32, optimizer="momentum", learning_rate=0.02, accumulate=accumulate)
    model = nn.Linear(WIDTH, NUM_CLASSES)
    return FineTuning(model, inputs, labels, plan, settings, accelerator, online=Reweighting(observer, net))


@pytest.mark.parametrize("method", METHODS)
def test_wrong_labels_weigh_less_than_right_ones(method):
    tuning, wrong = tune(method, 200), corrupt_problem()[2]
    tuning.run()
    rates = tuning.rates_now()
    assert rates[wrong].mean() < 0.7 * rates[~wrong].mean()


@pytest.mark.parametrize("method", METHODS)
def test_weights_do_not_depend_on_the_parts_that_a_step_is_cut_into(method):
    found = []
    for accumulate in (1, 4):
        tuning = tune(method, 6, accumulate)
        tuning.run()
        found.append(tuning.raw_model.weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)  # fp32 sums in another order


@pytest.mark.parametrize("method", METHODS)
def test_every_pass_and_the_guide_count_as_gradients(method):
    tuning = tune(method, 9)
    tuning.run()
    visits = int(tuning.visits.sum())
    guide = 15 * 2  # steps 0 and 8
    assert tuning.gradients() == visits * (2 if method == "l2rw" else 1) + guide


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_training_goes_on_with_the_same_weights(method):
    whole, first, rest = tune(method, 12), tune(method, 12), tune(method, 12)
    whole.run()
    first.stop_asked = lambda: first.step == 8
    with pytest.raises(Exception, match="stopped after step 8"):
        first.run()
    rest.online.load({name: value.clone() for name, value in first.online.state().items()})
    torch.testing.assert_close(rest.online.rates(), first.online.rates())
    if rest.online.net is not None:
        losses = torch.linspace(0, 2, 8)
        assert torch.equal(rest.online.net.weights(losses), first.online.net.weights(losses))
