"""A head on Gaussian features whose steps are weighted by what it learns on the way."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from test_online import NUM_CLASSES, NUM_SOURCE, WIDTH, corrupt_problem
from torch import nn

from homing.models.inputs import FeatureInputs
from homing.rates.online.reweighting import WeightNet
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.online import OnlineRates, OnlineSettings
from homing.training.plan import Phase, TrainingPlan
from homing.training.reweighting import Reweighting
from homing.training.step import Settings


def tune(method: str, num_steps: int) -> FineTuning:
    """Trained to the end, in as many processes as there are."""
    features, labels, _ = corrupt_problem()
    accelerator = Accelerator(cpu=True)
    inputs = FeatureInputs(features, accelerator.device)
    observer = Observer(Guide(inputs, labels, NUM_SOURCE, accelerator, batch_size=15))
    if method == "instance":
        online = OnlineRates(OnlineSettings(observe_every=2), observer, NUM_CLASSES)
    else:
        online = Reweighting(observer, WeightNet() if method == "meta_weight_net" else None)
    plan = TrainingPlan((Phase(torch.ones(NUM_SOURCE), 2.0),), "weight", online=method)
    settings = Settings(num_steps, batch_size=31, optimizer="momentum", learning_rate=0.02, accumulate=2)
    torch.manual_seed(0)
    tuning = FineTuning(nn.Linear(WIDTH, NUM_CLASSES), inputs, labels, plan, settings, accelerator, online=online)
    tuning.run()
    return tuning
