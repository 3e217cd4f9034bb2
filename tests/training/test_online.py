"""Instance rates, learned from alignments while a model trains."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from homing.models.inputs import FeatureInputs
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.online import OnlineRates, OnlineSettings
from homing.training.plan import Phase, TrainingPlan
from homing.training.step import Settings

NUM_SOURCE, NUM_TARGET, NUM_CLASSES, WIDTH = 240, 30, 3, 8


def corrupt_problem():
    """Gaussian classes; a third of the source's labels is wrong, the target's are right."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(NUM_SOURCE + NUM_TARGET) % NUM_CLASSES
    features = torch.randn(len(true), WIDTH, generator=generator)
    features[torch.arange(len(true)), true] += 2.5
    labels = true.clone()
    labels[: NUM_SOURCE // 3] = (labels[: NUM_SOURCE // 3] + 1) % NUM_CLASSES
    return features, labels, labels[:NUM_SOURCE] != true[:NUM_SOURCE]


def tune(apply: str, num_steps: int = 200, seed: int = 0) -> FineTuning:
    features, labels, _ = corrupt_problem()
    accelerator = Accelerator(cpu=True)
    inputs = FeatureInputs(features, accelerator.device)
    torch.manual_seed(seed)
    guide = Guide(inputs, labels, NUM_SOURCE, accelerator, batch_size=15)
    online = OnlineRates(OnlineSettings(observe_every=1, step_size=0.3), Observer(guide), NUM_CLASSES)
    plan = TrainingPlan((Phase(torch.ones(NUM_SOURCE), 2.0),), apply, online="instance")
    settings = Settings(num_steps, batch_size=32, optimizer="momentum", learning_rate=0.02, seed=seed)
    tuning = FineTuning(nn.Linear(WIDTH, NUM_CLASSES), inputs, labels, plan, settings, accelerator, online=online)
    tuning.run()
    return tuning


def test_wrong_labels_end_with_lower_rates_than_right_ones():
    wrong = corrupt_problem()[2]
    for apply in ("weight", "sample"):
        rates = tune(apply).rates_now()
        assert rates[wrong].mean() < 0.7 * rates[~wrong].mean()


def test_rates_stay_within_their_bounds_and_are_told_by_visits():
    tuning = tune("weight", num_steps=60)
    rates = tuning.rates_now()
    assert float(rates.min()) >= 0
    assert float(rates.max()) <= 3
    assert torch.equal(tuning.online.table.visits > 0, rates != 1)


def test_the_guide_takes_every_target_image_in_turn():
    guide = tune("weight", num_steps=1).online.observer.guide
    rows = [row for number in range(2) for row in guide.rows(number)]
    assert sorted(rows) == list(range(NUM_SOURCE, NUM_SOURCE + NUM_TARGET))
