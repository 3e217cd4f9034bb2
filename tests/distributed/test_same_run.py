"""The number of processes changes nothing: rates, visits, statistics and weights are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tensor_inputs import fine_tuning, small_model
from test_online import NUM_CLASSES, NUM_SOURCE, WIDTH, corrupt_problem
from torch import nn

from homing.errors import Interrupted
from homing.models.inputs import FeatureInputs
from homing.models.parts import batch_norms
from homing.rates.learned.plan import Doubt
from homing.rates.online.reweighting import WeightNet
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.online import OnlineRates, OnlineSettings
from homing.training.plan import Phase, TrainingPlan
from homing.training.records import Checkpoints
from homing.training.reweighting import Reweighting
from homing.training.step import Settings
from processes import end_group, start_group

NUM_STEPS, CUT = 20, 9


def tuning(method: str, folder: Path, accumulate: int = 1) -> FineTuning:
    features, labels, _ = corrupt_problem()
    accelerator = Accelerator(cpu=True)
    inputs = FeatureInputs(features.double(), accelerator.device)
    torch.manual_seed(0)
    observer = Observer(Guide(inputs, labels, NUM_SOURCE, accelerator, batch_size=15))
    if method == "instance":
        online = OnlineRates(OnlineSettings(observe_every=2, step_size=0.3), observer, NUM_CLASSES)
    else:
        online = Reweighting(observer, WeightNet() if method == "meta_weight_net" else None)
    apply = "sample" if method == "instance" else "weight"
    rates, right = torch.linspace(0.5, 1.5, NUM_SOURCE), torch.linspace(1, 0.2, NUM_SOURCE)
    doubt = Doubt(rates.flip(0), right) if method == "instance" else None
    plan = TrainingPlan((Phase(rates, 2.0),), apply, online=method, doubt=doubt)
    settings = Settings(NUM_STEPS, batch_size=33, optimizer="momentum", learning_rate=0.02, accumulate=accumulate)
    model = nn.Linear(WIDTH, NUM_CLASSES).double()
    checkpoints = Checkpoints(folder / "checkpoints", 1_000, 2, {"method": method}, resume=True)
    return FineTuning(
        model, inputs, labels, plan, settings, accelerator, online=online, checkpoints=checkpoints,
        names=lambda row: f"picture-{row}",
    )  # fmt: skip


def finish(method: str, folder: Path, accumulate: int = 1) -> None:
    one = tuning(method, folder, accumulate)
    one.run()
    left = {"weight": one.raw_model.weight.detach(), "rates": one.rates_now(), "visits": one.visits}
    torch.save(left, folder / f"left-{one.accelerator.process_index}.pt")


def half(method: str, folder: Path) -> None:
    one = tuning(method, folder)
    one.stop_asked = lambda: one.step == CUT
    with pytest.raises(Interrupted):
        one.run()


def together(size: int, function, *arguments) -> None:
    if size == 1:
        function(*arguments)
        return
    end_group(start_group(function, size, *arguments))


def check_same(one: Path, other: Path, rank: int = 0) -> None:
    ours, theirs = torch.load(one / "left-0.pt"), torch.load(other / f"left-{rank}.pt")
    assert torch.equal(ours["visits"], theirs["visits"])
    for name in ("weight", "rates"):  # sums in another order, and the table keeps fp32
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def folders(tmp_path: Path, *names: str) -> list[Path]:
    found = [tmp_path / name for name in names]
    for folder in found:
        folder.mkdir()
    return found


@pytest.mark.parametrize("before", [1, 2])
def test_a_run_of_one_or_two_processes_goes_on_with_three(tmp_path, before):
    whole, cut = folders(tmp_path, "whole", "cut")
    finish("instance", whole)
    together(before, half, "instance", cut)
    together(3, finish, "instance", cut)
    for rank in range(3):
        check_same(whole, cut, rank)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("method", ["l2rw", "meta_weight_net"])
def test_weights_of_a_step_depend_on_neither_parts_nor_processes(tmp_path, method, accumulate):
    whole, apart = folders(tmp_path, "whole", "apart")
    finish(method, whole)
    together(2, finish, method, apart, accumulate)
    for rank in range(2):
        check_same(whole, apart, rank)


def _statistics(folder: Path) -> None:
    """A training whose batch norms move, and what a rank ends with."""
    checkpoints = Checkpoints(folder / "checkpoints", 1_000, 2, {}, resume=False)
    plan = TrainingPlan((Phase(torch.ones(23), 1.0),))
    settings = Settings(num_steps=3, batch_size=28, batch_norm="train", learning_rate=1e-9, weight_decay=0.0, ema=0.9)
    one = fine_tuning(small_model(), plan, settings, checkpoints=checkpoints)
    one.run()
    norm = next(iter(batch_norms(one.raw_model)))
    left = {"mean": norm.running_mean, "var": norm.running_var}
    torch.save(left, folder / f"left-{one.accelerator.process_index}.pt")


def test_batch_norms_that_move_end_with_the_same_statistics_in_every_process(tmp_path):
    """The weights hardly move and each batch is everything, so that one process sees what two see together."""
    whole, apart = folders(tmp_path, "whole", "apart")
    _statistics(whole)
    together(2, _statistics, apart)
    one = torch.load(whole / "left-0.pt")
    two, three = (torch.load(apart / f"left-{rank}.pt") for rank in range(2))
    for name in one:
        assert torch.equal(two[name], three[name])
    torch.testing.assert_close(two["mean"], one["mean"], rtol=1e-5, atol=1e-6)
    # each process divides by its own n - 1, and the spread of their means is left out
    torch.testing.assert_close(two["var"], one["var"], rtol=1e-2, atol=1e-3)
