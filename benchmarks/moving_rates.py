"""Do rates that move while a model trains beat those that stay? Designs of three kinds against the static ones.

The last stage on a bank of activations, as in `bed.py`; one fine-tuning a run. Rows are drawn by credits (stride
scheduling), so that a rate may change at any step, and runs whose rates do not differ take the same rows. Seeds start
at 100. Resumable: what has its row is not done again.

    HOMING_DATA=... python benchmarks/moving_rates.py --cache DIR --results FILE [--designs static,reference]
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from functools import cached_property
from pathlib import Path

import torch
from activations import ActivationBank, LastStage, backbone, load_activations
from bed import BATCH_SIZE, EPOCHS, POOL_SIZE, StudyFeatures, settings_of
from moving_designs import DESIGNS, Direction, Static, losses_along, unit
from moving_signals import Signals
from pairs import cells_of, paired
from rows import add_row, machine, read_rows
from scenarios import Scenario, all_scenarios, draw_study
from torch import Tensor, nn
from torch.nn import functional

from homing.models.parts import set_training_mode
from homing.rates import learn_rates
from homing.training.average import running_average
from homing.training.head import probe_head
from homing.training.optimizer import build_schedule, optimizer_of
from homing.training.plan import Phase, num_steps_of
from homing.unpacking import NOMINAL_WEIGHT

KEY = ("scenario", "seed", "method")
NUM_MOVES = 5
ABOUT = {
    "command": "HOMING_DATA=... python benchmarks/moving_rates.py --cache DIR --results FILE",
    **machine(),
    "pool": POOL_SIZE,
    "epochs": EPOCHS,
}


class Case:
    """One scenario and seed: what all designs share. Rows are the source's N, then the target's n."""

    def __init__(self, scenario: Scenario, seed: int, bank: ActivationBank, model: nn.Module) -> None:
        self.seed, self.study = seed, draw_study(scenario, bank, seed, POOL_SIZE)
        evidence, study = self.study.evidence, self.study
        self.num_classes = evidence.num_classes
        self.num_source, self.num_target = evidence.num_source, evidence.num_target
        rows = torch.cat([study.pool, study.target])
        self.source_labels = evidence.source_labels
        self.labels = torch.cat([evidence.source_labels, evidence.target_labels])
        self.plan = learn_rates(evidence, seed=seed)
        self.rates = self.plan.rates.float()
        self.start = LastStage(model, self.num_classes)
        phase = Phase(self.rates, self.plan.target_weight)
        probe_head(self.start, StudyFeatures(bank, rows), torch.arange(len(rows)).numpy(), self.labels, phase)
        self.images = bank.activations[rows]  # [N + n, views, C, H, W]
        self.target = self.images[self.num_source :, 0], evidence.target_labels
        self.test = bank.activations[study.test, 0], study.test_labels
        self.num_steps = num_steps_of(EPOCHS, None, self.num_source + NOMINAL_WEIGHT * self.num_target, BATCH_SIZE)

    @cached_property
    def half(self) -> Tensor:
        """Every other target image of each class, bool `[n]`."""
        one_hot = functional.one_hot(self.target[1])
        rank = (one_hot.cumsum(0) * one_hot).sum(1)
        return (rank + self.target[1] % 2) % 2 == 0


class Run:
    """One fine-tuning, whose design moves `masses`: what each row is drawn by, `[N + n]`."""

    num_moves = NUM_MOVES

    def __init__(self, case: Case, design: Static) -> None:
        self.case, self.design, self.net = case, design, copy.deepcopy(case.start)
        settings = settings_of(case.num_steps, case.seed, {})
        self.optimizer = optimizer_of(self.net, settings)
        self.schedule = build_schedule(self.optimizer, settings)
        self.average = running_average(self.net, settings, 0)
        self.masses = torch.cat([case.rates, torch.full((case.num_target,), float(case.plan.target_weight))])
        self.visits = torch.zeros(len(case.labels), dtype=torch.int64)
        self.moves = {round(case.num_steps * (number + 1) / (NUM_MOVES + 1)): number for number in range(NUM_MOVES)}

    def train(self) -> dict[str, float]:
        """Accuracy in percent and nats on the test, and on its odd images."""
        case, num_rows = self.case, len(self.case.labels)
        generator = torch.Generator().manual_seed(1000 + case.seed)
        credit = (torch.randperm(num_rows, generator=generator) + 0.5) / num_rows
        first_view = torch.randint(0, 4, (num_rows,), generator=generator)
        set_training_mode(self.net, "frozen")
        self.design.start(self)
        for step in range(case.num_steps):
            if step in self.moves:
                self.design.move(self, self.moves[step])
            self.schedule.step_update(step)
            masses = self.design.masses_at(self, step / case.num_steps)
            credit += masses * (BATCH_SIZE / masses.sum())
            rows = credit.topk(BATCH_SIZE).indices
            credit[rows] -= 1
            views = (first_view[rows] + self.visits[rows]) % 4 + 1
            loss = functional.cross_entropy(self.net(case.images[rows, views].float()), case.labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.average.update(self.net, step + 1)
            self.visits[rows] += 1
        self.net = self.average.module
        return self.scores()

    def set_source(self, rates: Tensor) -> None:
        """New rates of the source, `[N]`."""
        self.masses = torch.cat([rates, self.masses[self.case.num_source :]])

    def set_target(self, weights: Tensor) -> None:
        """New weights of target images, `[n]`."""
        self.masses = torch.cat([self.masses[: self.case.num_source], weights])

    def alignments(self, direction: Direction, looked_at: Tensor) -> Tensor:
        """How fast the loss of each row of the source falls along a direction, `[N]`; 0 where it is not looked at."""
        rows = looked_at.nonzero().squeeze(1)
        found = torch.zeros(self.case.num_source)
        found[rows] = -losses_along(self.net, self.case.images[rows, 0], self.case.labels[rows], direction)
        return found

    def downhill(self, images: Tensor, labels: Tensor) -> Direction:
        """The step of the optimizer on some images, without momentum."""
        loss = functional.cross_entropy(self.net(images.float()), labels)
        parameters = list(self.net.parameters())
        gradient = torch.autograd.grad(loss, parameters)
        return unit([-part * self._scale(p) for part, p in zip(gradient, parameters, strict=True)])

    def _scale(self, parameter: nn.Parameter) -> Tensor:
        """Adam's step of each number of a parameter for a gradient of 1."""
        state = self.optimizer.state[parameter]
        return 1 / ((state["exp_avg_sq"] / (1 - 0.999 ** state["step"])).sqrt() + 1e-8)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """[B, classes] by the weights that are averaged, once they are."""
        averaged = self.average.module if 2 * int(self.visits.sum()) > BATCH_SIZE * self.case.num_steps else self.net
        return torch.cat([averaged(part.float()) for part in images.split(256)])

    def scores(self) -> dict[str, float]:
        """Accuracy in percent and nats on the test, and on its odd images."""
        self.net.eval()
        images, labels = self.case.test
        with torch.inference_mode():
            logits = torch.cat([self.net(part.float()) for part in images.split(256)])
        right = 100.0 * (logits.argmax(1) == labels).float()
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return {
            "accuracy": round(float(right.mean()), 3),
            "nll": round(float(losses.mean()), 4),
            "accuracy_odd": round(float(right[1::2].mean()), 3),
            "nll_odd": round(float(losses[1::2].mean()), 4),
        }


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    scenarios = [s for s in all_scenarios() if "shots" not in s.name and s.bank != "icons"]
    random.Random(5).shuffle(scenarios)  # in turn of all kinds
    model, _ = backbone()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for scenario in scenarios:
            there = {tuple(row[part] for part in KEY) for row in read_rows(arguments.results)}
            missing = [name for name in arguments.designs if (scenario.name, seed, name) not in there]
            if missing:
                case = Case(scenario, seed, load_activations(scenario.bank, arguments.cache), model)
                run_designs(case, (scenario.name, seed), missing, arguments.results)
    print_designs(read_rows(arguments.results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned activations")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--designs", type=lambda text: text.split(","), default=list(DESIGNS))
    return parser.parse_args()


def run_designs(case: Case, drawn: tuple[str, int], names: list[str], results: Path) -> None:
    """A row of each design; `drawn`: scenario and seed."""
    for name in names:
        began, design = time.process_time(), (DESIGNS | {"signals": Signals})[name]()
        row = dict(zip(KEY, (*drawn, name), strict=True)) | {"changes": {}} | Run(case, design).train()
        if isinstance(design, Signals):
            row["signals"] = design.signals
        add_row(row | {"seconds": round(time.process_time() - began, 1)}, results, ABOUT)
        print(*drawn, name, row["accuracy"], row["nll"], file=sys.stderr, flush=True)


def print_designs(rows: list[dict]) -> None:
    """Each design minus the static rates, over the runs that both have; the ceiling on odd images of the test."""
    accuracy, nats = cells_of(rows), cells_of(rows, "nll")
    odd, odd_nats = cells_of(rows, "accuracy_odd"), cells_of(rows, "nll_odd")
    for name in DESIGNS:
        points, losses = (odd, odd_nats) if name == "test" else (accuracy, nats)
        if name == "static" or name not in points:
            continue
        lower = {kind: {run: -100 * value for run, value in losses[kind].items()} for kind in (name, "static")}
        print(f"{name:10s} points {paired(points[name], points['static'])}")
        print(f"{name:10s} hundredths of a nat saved {paired(lower[name], lower['static'])}")


if __name__ == "__main__":
    main()
