"""What unlabelled images bring where a last stage is fine-tuned: the bed without 300 of them, with, and with labels.

They are taken out of what is else the test, and never scored. Two branches without them; the same first branch and a
second one that learns what the first guesses, as a run does; and one that learns their true labels. Half of them may be
foreign, or all. Resumable.

    HOMING_DATA=... python benchmarks/unlabelled_bed.py --cache DIR --first-seed 100 --seeds 2 --results FILE
    HOMING_DATA=... python benchmarks/unlabelled_bed.py --cache DIR --first-seed 100 --foreign half --results FILE
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from activations import ActivationBank, LastStage, backbone, load_activations
from bed import EPOCHS, POOL_SIZE, StageInputs, StudyFeatures, scores, settings_of
from pairs import print_pairs
from rows import add_row, read_rows
from scenarios import Scenario, Study, draw_study
from torch import Tensor, nn

from homing.rates.learned.guesses import guess_labels, guess_rates
from homing.rates.learned.learner import WIDTH, learn_rates
from homing.rates.learned.propagation import propagate
from homing.training.branches import branch_seed, draw_to
from homing.training.head import probe_head
from homing.training.loop import FineTuning
from homing.training.plan import Phase, TrainingPlan, num_steps_of
from homing.unpacking import NOMINAL_WEIGHT

UNLABELLED, BATCH_SIZE, VIEWS = 300, 32, 4
PACS, DIGITS = ("art_painting", "cartoon", "photo", "sketch"), ("mnist", "mnist_m", "usps")
KEY = ("scenario", "seed", "method")


def scenarios() -> list[Scenario]:
    """Four domains of pictures and three of digits, clean and with 40 % of the labels wrong; written digits."""
    grid = [("pacs", PACS, target, *hard) for target in PACS for hard in ((0.0, 0.0), (0.1, 0.4))]
    grid += [("digits", DIGITS, target, 0.0, 0.0) for target in DIGITS] + [("digits", DIGITS, "mnist", 0.1, 0.4)]
    found = [
        Scenario(f"{target} {needle} {noise}", bank, target, tuple(d for d in domains if d != target), needle, noise)
        for bank, domains, target, needle, noise in grid
    ]
    return [*found, Scenario("written 0.17 0.0", "quickstart", "written", ("printed",), 0.17, 0.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned activations")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--foreign", choices=("none", "half", "all"), default="none")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = backbone()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for scenario in (scenario for scenario in scenarios() if arguments.only in scenario.name):
            named = replace(scenario, name=scenario.name + {"none": ""}.get(arguments.foreign, f" {arguments.foreign}"))
            there = {tuple(row[part] for part in KEY) for row in read_rows(arguments.results)}
            if (named.name, seed, "without") in there:
                continue
            for method, row in compared(scenario, seed, model, arguments.cache, arguments.foreign).items():
                key = dict(zip(KEY, (named.name, seed, method), strict=True))
                add_row({**key, "changes": {}, **row}, arguments.results, {"unlabelled": UNLABELLED})
                print(json.dumps({**key, **row}), file=sys.stderr, flush=True)
    print_pairs(read_rows(arguments.results))


def compared(scenario: Scenario, seed: int, model: nn.Module, cache: Path, foreign: str) -> dict[str, dict]:
    """Rows of one study: without unlabelled images, with guesses, and with true labels."""
    bank = load_activations(scenario.bank, cache)
    study, rows, truth = _taken_out(draw_study(scenario, bank, seed, POOL_SIZE), bank, scenario, seed, foreign)
    evidence = study.evidence
    plan = learn_rates(evidence, seed=seed)
    bed = _Bed(bank, study, rows, plan.rates.float(), plan.target_weight, model, seed)
    first, other = bed.branch(1), bed.branch(2)
    before = guess_labels(
        evidence, plan.rates, plan.target_weight, bank.features[rows], projection=evidence.projection(WIDTH), seed=seed
    )
    right, labels = propagate(*bed.asked(first), evidence.target_labels).max(dim=1)
    sizes = {"source_labels": evidence.source_labels, "target_labels": evidence.target_labels}
    rates = guess_rates(
        labels, right, before.match, target_weight=plan.target_weight, num_classes=evidence.num_classes, **sizes
    )
    told = {
        "guesses right": 100 * float((labels == truth).float().mean()),
        "right by their word": 100 * float(right.mean()),
    }
    full = torch.full((len(rows),), plan.target_weight)
    full *= min(1.0, evidence.num_source / float(full.sum()))
    taught = bed.branch(2, labels, rates) if rates.any() else other
    return {
        "without": bed.scored(first, other),
        "hierarchical": bed.scored(first, taught) | told | {"mass": float(rates.sum())},
        "true labels": bed.scored(first, bed.branch(2, truth, full)),
        "true labels, alone": bed.scored(bed.branch(2, truth, full)),
    }


def _taken_out(
    study: Study, bank: ActivationBank, scenario: Scenario, seed: int, foreign: str
) -> tuple[Study, Tensor, Tensor]:
    """The study without some of its test; these, or foreign ones beside or in place of them; and their labels."""
    generator = torch.Generator().manual_seed(seed + 7)
    order = torch.randperm(len(study.test), generator=generator)
    rows, kept = study.test[order[:UNLABELLED]], order[UNLABELLED:]
    if foreign != "none":
        others = bank.rows_of(*(name for name in bank.domain_names if name != scenario.target))
        others = others[~torch.isin(others, study.pool)]
        others = others[torch.randperm(len(others), generator=generator)[:UNLABELLED]]
        rows = others if foreign == "all" else torch.cat([rows, others])
    kept_study = replace(
        study, test=study.test[kept], test_labels=study.test_labels[kept], test_features=study.test_features[kept]
    )
    return kept_study, rows, bank.labels[rows]


class _Bed:
    """One study, fine-tuned from one start."""

    def __init__(
        self,
        bank: ActivationBank,
        study: Study,
        rows: Tensor,
        rates: Tensor,
        weight: float,
        model: nn.Module,
        seed: int,
    ) -> None:
        self.bank, self.study, self.unlabelled, self.rates, self.weight, self.seed = (
            bank,
            study,
            rows,
            rates,
            weight,
            seed,
        )
        evidence = study.evidence
        self.steps = num_steps_of(EPOCHS, None, evidence.num_source + NOMINAL_WEIGHT * evidence.num_target, BATCH_SIZE)
        self.start = LastStage(model, evidence.num_classes)
        labelled = torch.cat([study.pool, study.target])
        labels = torch.cat([evidence.source_labels, evidence.target_labels])
        features, order = StudyFeatures(bank, labelled), torch.arange(len(labelled)).numpy()
        probe_head(self.start, features, order, labels, Phase(rates, weight))

    def branch(self, number: int, labels: Tensor | None = None, rates: Tensor | None = None) -> nn.Module:
        """Fine-tune once, perhaps with unlabelled images under some labels."""
        net, study, evidence = copy.deepcopy(self.start), self.study, self.study.evidence
        plan = TrainingPlan((Phase(self.rates, self.weight),))
        own, parts = [evidence.source_labels, evidence.target_labels], [study.pool, study.target]
        if labels is not None and rates is not None:
            plan = plan.with_guesses(labels, rates)
            own.insert(1, labels)
            parts.insert(1, self.unlabelled)
        inputs = StageInputs(self.bank, torch.cat(parts), list(range(1, 1 + VIEWS)))
        settings = settings_of(self.steps, branch_seed(self.seed, number), {})
        FineTuning(net, inputs, torch.cat(own), plan, settings, Accelerator(cpu=True)).run()
        return net

    def scored(self, *nets: nn.Module) -> dict:
        """Scores of the mean of some networks."""
        mean = copy.deepcopy(nets[0])
        for number, net in enumerate(nets[1:], start=2):
            draw_to(mean, net, 1 / number)
        return scores(mean, self.study, self.bank)

    @torch.inference_mode()
    def asked(self, net: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Mean probabilities over all views, and features, of the unlabelled images; features of the target."""
        net.eval()
        views = [self.bank.activations[self.unlabelled, view].float() for view in range(1 + VIEWS)]
        probabilities = torch.stack([net(view).softmax(dim=1) for view in views]).mean(dim=0)
        target = self.bank.activations[self.study.target, 0].float()
        return probabilities, net.features(views[0]), net.features(target)


if __name__ == "__main__":
    main()
