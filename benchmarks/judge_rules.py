"""Which rule should pick a setting from its held-out losses? Every rule, on the same losses, against the truth.

For each scenario and seed, all candidate settings are judged on folds of the target and all are tested as well; a
rule sees the held-out losses alone. Beside them the same numbers learned by meta-gradient, the mean over the pool of
what alignments with the target say, while a probe trains. Seeds start at 100: rules are not chosen on the draws that
the suite reports.

    HOMING_DATA=... python benchmarks/judge_rules.py --cache DIR [--seeds 1] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch
from online_probe import trained_rates
from probe_baselines import PROBES
from scenarios import Scenario, all_scenarios, draw_study
from torch import Tensor

from features import load_bank
from homing.rates import Evidence
from homing.rates.learned.balance import balanced_within_classes
from homing.rates.learned.consistency import pool_consistency
from homing.rates.learned.judge import choose, fit_candidates, judge
from homing.rates.learned.learner import WIDTH
from homing.rates.learned.probe import log_probabilities, with_bias
from homing.rates.learned.rate_model import (
    DESCRIPTORS,
    Description,
    Setting,
    candidate_settings,
    describe,
    log_prior,
    rates_of,
)

FIRST_SEED = 100
META_RATE, MAX_POWER = 0.02, 16.0


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    gains: dict[str, list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for scenario in all_scenarios():
            found = _gains(scenario, seed, arguments.cache)
            print(scenario.name, seed, {rule: round(gain, 1) for rule, gain in found.items()}, file=sys.stderr)
            for rule, gain in found.items():
                gains.setdefault(rule, []).append(gain)
    table = {
        rule: {"n": len(g), "mean": round(mean(g), 2), "sd": round(stdev(g), 2), "worst": round(min(g), 1)}
        for rule, g in gains.items()
    }
    print("points of test accuracy above pooled_oversampled, over scenarios and seeds")
    for rule, row in table.items():
        print(f"{rule:28s} mean {row['mean']:+.2f}  sd {row['sd']:.2f}  worst {row['worst']:+.1f}  n {row['n']}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(table, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


def _gains(scenario: Scenario, seed: int, cache: Path) -> dict[str, float]:
    study = draw_study(scenario, load_bank(scenario.bank, cache), seed)
    evidence = study.evidence.projected(WIDTH)
    sizes = evidence.num_source, evidence.num_target
    settings = candidate_settings(DESCRIPTORS, *sizes, None)
    weights = torch.tensor([setting.target_weight for setting in settings])
    pool = pool_consistency(evidence, seed)
    verdict = judge(
        evidence, weights, lambda part: rates_of(settings, describe(part, DESCRIPTORS, pool, seed), part), seed=seed
    )
    description, prior = describe(evidence, DESCRIPTORS, pool, seed), log_prior(settings, *sizes)
    weight = settings[choose(verdict.losses, prior)].target_weight
    by_gradient = {
        "meta-gradient, target trained on": by_meta_gradient(evidence, description, settings, weight, weight, seed),
        "meta-gradient, target kept out": by_meta_gradient(evidence, description, settings, weight, 0.0, seed),
    }
    tested = [*settings, *by_gradient.values()]
    weights = torch.tensor([setting.target_weight for setting in tested])
    probes = fit_candidates(evidence, weights, rates_of(tested, description, evidence))
    test = replace(study.evidence, target_features=study.test_features, target_labels=study.test_labels)
    log_probs = log_probabilities(with_bias(test.projected(WIDTH).target_features), probes)
    accuracies = 100 * (log_probs.argmax(dim=2) == study.test_labels).float().mean(dim=1)
    pooled = PROBES["pooled_oversampled"](study.evidence, seed=seed, target_weight=None)
    yardstick = accuracies[settings.index(Setting(pooled.target_weight))]
    gains = {name: float(accuracies[rule(verdict.losses, prior)] - yardstick) for name, rule in RULES.items()}
    learned = zip(by_gradient, (accuracies[len(settings) :] - yardstick).tolist(), strict=True)
    return gains | dict(learned) | {"(best setting on the test)": float(accuracies[: len(settings)].max() - yardstick)}


def by_meta_gradient(
    evidence: Evidence, description: Description, settings: list[Setting], weight: float, mass: float, seed: int
) -> Setting:
    """Lift and power, moved by Adam along what the alignments of each minibatch say of them, from the prior's middle.

    Args:
        evidence: Both pools.
        description: Of the source's rows.
        settings: Candidates, whose lifts bound the one that is learned.
        weight: Of the target, as the judge chose it; a greedy step on the target's own loss would only raise it.
        mass: The target's weight while they are learned: the same, or 0 where the target is only a guide.
        seed: Of the minibatches.
    """
    top = max(setting.match_lift for setting in settings)
    numbers = torch.tensor([0.5 * math.log(top), 1.0], requires_grad=True)  # log lift, power
    optimizer = torch.optim.Adam([numbers], lr=META_RATE)

    def rates() -> Tensor:
        raw = (1 + (numbers[0].exp() - 1) * description.likeness.match) * description.consistency.right ** numbers[1]
        return balanced_within_classes(raw, evidence.source_labels, evidence.num_classes)

    def weigh(rows: Tensor, losses: Tensor, alignments: Tensor) -> Tensor:
        with torch.enable_grad():
            of_rows = rates()[rows]
            optimizer.zero_grad()
            (-(alignments * of_rows).mean() / alignments.abs().mean()).backward()
            optimizer.step()
        with torch.no_grad():
            numbers[0].clamp_(0, math.log(top))
            numbers[1].clamp_(0, MAX_POWER)
        return of_rows.detach()

    trained_rates(evidence, mass, seed, weigh)
    log_lift, power = numbers.tolist()
    return Setting(weight, math.exp(log_lift), power)


def _within_one_error(losses: Tensor, prior: Tensor, *, paired: bool) -> int:
    """The most uniform setting within one standard error of the best; settings are listed from uniform on."""
    means = losses.mean(dim=1)
    spread = losses - losses[means.argmin()] if paired else losses[means.argmin()].expand_as(losses)
    error = spread.std(dim=1) / losses.shape[1] ** 0.5
    return int((means - means.min() <= error).nonzero()[0])


RULES: dict[str, Callable[[Tensor, Tensor], int]] = {
    "lowest held-out loss": lambda losses, prior: int(losses.mean(dim=1).argmin()),
    "within one standard error": lambda losses, prior: _within_one_error(losses, prior, paired=False),
    "within one paired error": lambda losses, prior: _within_one_error(losses, prior, paired=True),
    "the prior alone": lambda losses, prior: int(prior.argmax()),
    "posterior (in use)": choose,
}


if __name__ == "__main__":
    main()
