"""The suite's scenarios: which images are the pool, the target and the test, and what is wrong with the pool.

Every scenario is drawn from a bank of real images by (scenario, seed) alone. Some images of the target's domain
are hidden in the pool (`needle`), some labels of the pool are wrong (`noise`); both are known by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from icons import are_installed
from torch import Tensor

from features import FeatureBank
from homing.rates import Evidence

POOL_SIZE = 3000


@dataclass(frozen=True)
class Scenario:
    """One customer: a target domain, the pool at hand, and what is hidden in it."""

    name: str
    bank: str
    target: str
    sources: tuple[str, ...]
    needle: float  # share of the target domain's left-over images that is hidden in the pool
    noise: float  # share of the pool's labels that is wrong
    shots: int = 5  # labelled target images a class
    target_classes: tuple[str, ...] | None = None  # None: all of them
    mixed_up: bool = False  # a wrong label is always that of the next class, as where annotators mix two classes up


@dataclass(frozen=True)
class Study:
    """What a method may see, and the test that it is scored on once."""

    evidence: Evidence
    test_features: Tensor  # [M, D]
    test_labels: Tensor  # [M]
    pool: Tensor  # rows of the bank, [N]
    target: Tensor  # [n]
    test: Tensor  # [M]


def draw_study(scenario: Scenario, bank: FeatureBank, seed: int, pool_size: int = POOL_SIZE) -> Study:
    """Split the bank into target, pool and test, hide the needles and corrupt labels."""
    generator = torch.Generator().manual_seed(seed)
    domain = _shuffled(bank.rows_of(scenario.target), generator)
    wanted = scenario.target_classes or bank.class_names
    domain = domain[torch.isin(bank.labels[domain], torch.tensor([bank.class_names.index(c) for c in wanted]))]
    is_target = _first_of_each_class(bank.labels[domain], scenario.shots)
    target, left = domain[is_target], domain[~is_target]
    num_hidden = round(scenario.needle * len(left))
    hidden, test = left[:num_hidden], left[num_hidden:]
    others = _shuffled(bank.rows_of(*scenario.sources), generator)[: max(0, pool_size - num_hidden)]
    pool = _shuffled(torch.cat([hidden, others]), generator)
    labels, clean = _with_wrong_labels(
        bank.labels[pool], scenario.noise, len(bank.class_names), generator, scenario.mixed_up
    )
    evidence = Evidence(
        source_features=bank.features[pool],
        source_labels=labels,
        target_features=bank.features[target],
        target_labels=bank.labels[target],
        num_classes=len(bank.class_names),
        matches=torch.isin(pool, hidden),
        clean=clean,
    )
    return Study(evidence, bank.features[test], bank.labels[test], pool, target, test)


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def _first_of_each_class(labels: Tensor, count: int) -> Tensor:
    one_hot = torch.nn.functional.one_hot(labels)
    rank_in_class = (one_hot.cumsum(0) * one_hot).sum(1)
    return rank_in_class <= count


def _with_wrong_labels(
    labels: Tensor, share: float, num_classes: int, generator: torch.Generator, mixed_up: bool
) -> tuple[Tensor, Tensor]:
    wrong = torch.rand(len(labels), generator=generator) < share
    shift = torch.randint(1, 2 if mixed_up else num_classes, (len(labels),), generator=generator)
    return torch.where(wrong, (labels + shift) % num_classes, labels), ~wrong


def _grid(bank: str, target: str, sources: tuple[str, ...]) -> list[Scenario]:
    return [
        Scenario(f"{target} needle {needle} noise {noise}", bank, target, sources, needle, noise)
        for needle in (0.0, 0.1)
        for noise in (0.0, 0.4)
    ]


def all_scenarios() -> list[Scenario]:
    """The fast tier, in the order of its table."""
    pacs = ("art_painting", "cartoon", "photo", "sketch")
    scenarios = [s for target in pacs for s in _grid("pacs", target, tuple(d for d in pacs if d != target))]
    scenarios += _grid("digits", "usps", ("mnist", "mnist_m"))
    scenarios += [Scenario("written digits needle 0.17 noise 0", "quickstart", "written", ("printed",), 0.17, 0.0)]
    scenarios += _grid("icons", "line", ("color",)) if are_installed() else []
    cartoon = Scenario("cartoon", "pacs", "cartoon", ("art_painting", "photo", "sketch"), 0.1, 0.2)
    subset = ("dog", "guitar", "person")
    scenarios += [replace(cartoon, name="cartoon class subset needle 0.1 noise 0.2", target_classes=subset)]
    scenarios += [replace(cartoon, name=f"cartoon {k} shots needle 0.1 noise 0.2", shots=k) for k in (2, 5, 20)]
    usps = Scenario("usps", "digits", "usps", ("mnist", "mnist_m"), 0.1, 0.0)
    scenarios += [
        replace(s, name=f"{s.name} mixed up needle 0.1 noise 0.3", noise=0.3, mixed_up=True) for s in (cartoon, usps)
    ]
    return scenarios


def slice_scenarios() -> list[Scenario]:
    """Two minutes of the fast tier, on images that pip packages ship: no data folder is needed."""
    written = Scenario("written digits", "quickstart", "written", ("printed",), 0.0, 0.0)
    grid = ((0.0, 0.0), (0.17, 0.0), (0.17, 0.4))
    return [
        replace(written, name=f"written digits needle {needle} noise {noise}", needle=needle, noise=noise)
        for needle, noise in grid
    ]
