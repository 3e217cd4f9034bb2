"""Designs whose rates move while a model trains, for `moving_rates.py`; each starts from the static ones.

Groups are bins of what the scan knows: likeness (thirds, and rows that probably match) x P(label right). A design is
asked five times in a training, at even steps. Alignments are exact but for rounding: central differences of the loss
of each row along the guide's direction.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from bed import settings_of
from torch import Tensor, nn
from torch.nn import functional

from homing.models.parts import set_training_mode
from homing.rates.learned.balance import spread_within_classes
from homing.rates.learned.judge import judge
from homing.rates.learned.label_noise import right_from_clean
from homing.training.optimizer import build_schedule, optimizer_of

if TYPE_CHECKING:
    from moving_rates import Case, Run

Direction = list[Tensor]
"""A unit step of all parameters."""

SOME = 60  # rows of a group that are looked at each time
TEST_GUIDE = slice(0, 400, 2)  # test images that the ceiling is guided by; the odd ones are then what it is scored on
REFERENCE_STEPS = 40


class Static:
    """Rates that stay."""

    def start(self, run: Run) -> None:
        """Before the first step."""

    def move(self, run: Run, number: int) -> None:
        """At the `number`-th of the steps at which rates may move: change `run.masses`."""

    def masses_at(self, run: Run, share: float) -> Tensor:
        """What each row of source and target is drawn by when this share of the steps is done, `[N + n]`."""
        return run.masses


class Groups(Static):
    """Multiplicative weights: a group's rates grow with its alignment, in standard deviations of single rows.

    Args:
        guide: target (trained on), reference (a short training on the target, from the same start), left_out (the half
            of the target that this stretch of the training leaves out) or test (a ceiling: 200 images that nobody has).
        by_class: Bins of each class by themselves, shrunk to those of all classes.
        step_size: Of the logarithm of a rate, a standard deviation.
    """

    def __init__(self, guide: str, *, by_class: bool = False, step_size: float = 0.4) -> None:
        self.guide, self.by_class, self.step_size = guide, by_class, step_size

    def start(self, run: Run) -> None:
        """Before the first step."""
        self.coarse, self.fine = bins(run.case, by_class=False), bins(run.case, by_class=True)
        self.log_factors = torch.zeros(run.case.num_source)
        if self.guide == "reference":
            self.reference = short_training(run.case)
        if self.guide == "left_out":
            _leave_out(run, 0)

    def move(self, run: Run, number: int) -> None:
        """At the `number`-th of the steps at which rates may move."""
        labels, rates = run.case.source_labels, run.case.rates
        looked_at = torch.ones(len(labels)) if self.by_class else _some_of(self.coarse, number)
        weights = (rates + 0.05) * looked_at
        values = run.alignments(self._direction(run), looked_at > 0)
        values = (values - mean_by(labels, values, weights)[labels]) * looked_at
        spread = float((values.square() * weights).sum() / weights.sum()) ** 0.5
        means = mean_by(self.coarse, values, looked_at)[self.coarse]
        if self.by_class:
            count = torch.bincount(self.fine)[self.fine]
            means = (count * mean_by(self.fine, values, looked_at)[self.fine] + 10 * means) / (count + 10)
        self.log_factors += self.step_size * (means / (spread + 1e-12)).clamp(-3, 3)
        factors = self.log_factors.clamp(-math.log(4), math.log(4)).exp()
        run.set_source(balanced(run.case, rates * factors))
        if self.guide == "left_out":
            _leave_out(run, number + 1)

    def _direction(self, run: Run) -> Direction:
        images, labels = run.case.target
        if self.guide == "reference":
            return unit([there - here for there, here in zip(self.reference, run.net.parameters(), strict=True)])
        if self.guide == "test":
            return run.downhill(run.case.test[0][TEST_GUIDE], run.case.test[1][TEST_GUIDE])
        if self.guide == "left_out":
            left_out = run.masses[run.case.num_source :] == 0
            return run.downhill(images[left_out], labels[left_out])
        return run.downhill(images, labels)


class Fade(Groups):
    """Each group's rates fade as its running alignment falls below where it was at first; the target's weight stays."""

    def start(self, run: Run) -> None:
        """Before the first step."""
        super().start(run)
        self.first: Tensor | None = None

    def move(self, run: Run, number: int) -> None:
        """At the `number`-th of the steps at which rates may move."""
        looked_at = _some_of(self.coarse, number)
        weights = (run.case.rates + 1e-3) * looked_at
        means = mean_by(self.coarse, run.alignments(self._direction(run), looked_at > 0), weights)
        if self.first is None:
            counts = torch.zeros_like(means).index_add_(0, self.coarse, weights)
            whole = float((means * counts).sum() / weights.sum())
            self.running, self.first = means, means.clamp(min=max(whole, 1e-9))
        else:
            self.running = 0.6 * self.running + 0.4 * means
        left = (self.running / self.first).clamp(0, 1)
        run.set_source(run.case.rates * left[self.coarse])
        if self.guide == "left_out":
            _leave_out(run, number + 1)


class Rise(Static):
    """In the second half the target's weight rises, up to 16 times, the further the better the target alone does."""

    def start(self, run: Run) -> None:
        """Before the first step."""
        self.top = 1 + 15 * math.exp(-max(0.0, target_alone_behind(run.case)) / 0.1)

    def masses_at(self, run: Run, share: float) -> Tensor:
        """What each row of source and target is drawn by when this share of the steps is done, `[N + n]`."""
        masses = run.masses.clone()
        masses[run.case.num_source :] *= self.top ** max(0.0, 2 * share - 1)
        return masses


class Right(Static):
    """P(label right) of rows that were not visited so far: static and the network's log-odds, half and half."""

    def move(self, run: Run, number: int) -> None:
        """At the `number`-th of the steps at which rates may move."""
        case, plan = run.case, run.case.plan
        if number == 0:
            self.right = plan.right.clone()
        if not 1 <= number <= 3 or not (plan.right < 0.999).any():
            return
        wrong = 1 - float(plan.right.mean())
        noise = torch.full((case.num_classes,) * 2, wrong / (case.num_classes - 1)).fill_diagonal_(1 - wrong)
        probabilities = run.logits(case.images[: case.num_source, 0]).softmax(1)
        found = right_from_clean(probabilities, case.source_labels, noise)
        static, network = (value.clamp(1e-4, 1 - 1e-4).logit() for value in (plan.right, found))
        unvisited = run.visits[: case.num_source] == 0
        self.right = torch.where(unvisited, (0.5 * static + 0.5 * network).sigmoid(), self.right)
        lifted = 1 + (plan.phi["match_lift"] - 1) * plan.match
        run.set_source(balanced(case, lifted * self.right ** plan.phi["let_go"]))


DESIGNS = {
    "static": Static,
    "target": lambda: Groups("target"),
    "reference": lambda: Groups("reference"),
    "left_out": lambda: Groups("left_out"),
    "fade": lambda: Fade("left_out"),
    "rise": Rise,
    "right": Right,
    "test": lambda: Groups("test", by_class=True),
}


def bins(case: Case, *, by_class: bool) -> Tensor:
    """Group of each row of the source, `[N]`."""
    ratio, right = case.plan.descriptors["target_likeness"], case.plan.right
    likeness = torch.bucketize(ratio, torch.quantile(ratio, torch.tensor([1 / 3, 2 / 3])))
    likeness = torch.where(case.plan.match > 0.5, 3, likeness)
    number = likeness * 3 + torch.bucketize(right, torch.tensor([0.5, 0.95]))
    number = number * case.num_classes + case.source_labels if by_class else number
    return torch.unique(number, return_inverse=True)[1]


def mean_by(groups: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of each group, `[G]`."""
    sums = torch.zeros(2, int(groups.max()) + 1)
    sums.index_add_(1, groups, torch.stack([values * weights, weights]))
    return sums[0] / sums[1].clamp(min=1e-9)


def balanced(case: Case, raw: Tensor) -> Tensor:
    """Rates scaled to the mean of the static ones within each class."""
    labels = case.source_labels
    rates, _ = spread_within_classes(raw, labels, case.num_classes)
    means = torch.zeros(case.num_classes).index_add_(0, labels, case.rates)
    return rates.float() * (means / torch.bincount(labels, minlength=case.num_classes).clamp(min=1))[labels]


def target_alone_behind(case: Case) -> float:
    """Held-out nats that a probe of the target alone is worse than one of the static rates, on frozen folds."""
    evidence = case.study.evidence.projected(128)
    rates = torch.stack([torch.zeros(case.num_source), case.rates])
    weights = torch.tensor([1.0, float(case.plan.target_weight)])
    alone, static = judge(evidence, weights, lambda part: rates, seed=case.seed).losses.mean(1)
    return float(alone - static)


def short_training(case: Case) -> list[Tensor]:
    """Parameters after some steps from the start, two thirds of each batch of the target."""
    net = copy.deepcopy(case.start)
    set_training_mode(net, "frozen")
    settings = settings_of(REFERENCE_STEPS, case.seed, {})
    optimizer = optimizer_of(net, settings)
    schedule = build_schedule(optimizer, settings)
    generator = torch.Generator().manual_seed(case.seed)
    for step in range(REFERENCE_STEPS):
        schedule.step_update(step)
        of_target = case.num_source + torch.randperm(case.num_target, generator=generator)[:16]
        rows = torch.cat([of_target, torch.multinomial(case.rates + 1e-12, 8, generator=generator)])
        views = torch.randint(1, 5, (len(rows),), generator=generator)
        loss = functional.cross_entropy(net(case.images[rows, views].float()), case.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()]


@torch.no_grad()
def losses_along(net: nn.Module, images: Tensor, labels: Tensor, direction: Direction, far: float = 0.02) -> Tensor:
    """How fast the loss of each row rises along a direction, `[B]`."""
    parameters, found = list(net.parameters()), []
    kept = [parameter.clone() for parameter in parameters]
    for step in (far, -far):
        for parameter, start, along in zip(parameters, kept, direction, strict=True):
            parameter.copy_(start + step * along)
        parts = zip(images.split(256), labels.split(256), strict=True)
        found.append(torch.cat([functional.cross_entropy(net(x.float()), y, reduction="none") for x, y in parts]))
    for parameter, start in zip(parameters, kept, strict=True):
        parameter.copy_(start)
    return (found[0] - found[1]) / (2 * far)


def unit(direction: Direction) -> Direction:
    """Scaled to length 1."""
    length = math.sqrt(sum(float(part.square().sum()) for part in direction))
    return [part.detach() / (length + 1e-12) for part in direction]


def _some_of(groups: Tensor, number: int) -> Tensor:
    """1 for about `SOME` rows of each group, others each time; else 0."""
    drawn = torch.rand(len(groups), generator=torch.Generator().manual_seed(number))
    return (drawn < SOME / torch.bincount(groups)[groups]).float()


def _leave_out(run: Run, number: int) -> None:
    """Train on one half of the target, which counts twice, and on the other after the next; at the end on both."""
    trained = run.case.half if number % 2 == 0 else ~run.case.half
    weights = torch.where(trained, run.case.num_target / float(trained.sum()), 0.0) * float(run.case.plan.target_weight)
    run.set_target(weights if number < run.num_moves else torch.full_like(weights, float(run.case.plan.target_weight)))
