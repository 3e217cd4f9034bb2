"""Simulated customers on disk: source, target and test of real images, laid out as folders of links."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


@dataclass(frozen=True)
class Scenario:
    """A recipe on real images: the target's domain, which domains make the pool, what is hidden or wrong in it."""

    recipe: str
    target: str
    sources: tuple[str, ...]
    needle: float  # share of the target domain's left-over images hidden in the pool; 1 - where the pool is the domain
    noise: float  # share of the pool's labels that is wrong
    shots: int = 5  # labelled target images a class
    pool: int = 3000
    collection: str = "pacs"  # or digits, characters
    test: int | None = None  # images at most; None: all that are left
    image_size: int | None = None  # pixels; None: the recipe's


def others(domain: str) -> tuple[str, ...]:
    return tuple(name for name in DOMAINS if name != domain)


def images_of(data: Path, collection: str, domain: str) -> list[tuple[Path, str]]:
    folder = data / collection / domain
    return sorted((path, path.parent.name) for path in folder.glob("*/*") if path.is_file())


def lay_out(scenario: Scenario, data: Path, folder: Path, seed: int) -> None:
    """Draw source, target and test from (scenario, seed) alone, as folders of links."""
    generator = np.random.default_rng([seed, 7])
    images = images_of(data, scenario.collection, scenario.target)
    domain = [images[row] for row in generator.permutation(len(images))]
    classes = sorted({label for _, label in domain})
    target = [item for label in classes for item in [pair for pair in domain if pair[1] == label][: scenario.shots]]
    taken = set(target)
    left = [item for item in domain if item not in taken]
    hidden = left[: round(scenario.needle * len(left))]
    test = left[len(hidden) :][: scenario.test]
    pool = [(item, scenario.target) for item in hidden]
    rest = [(item, name) for name in scenario.sources for item in images_of(data, scenario.collection, name)]
    order = generator.permutation(len(rest))[: max(0, scenario.pool - len(pool))]
    pool = (pool + [rest[row] for row in order])[: scenario.pool]
    wrong = set(generator.permutation(len(pool))[: round(scenario.noise * len(pool))].tolist())
    rows = []
    for number, ((path, label), origin) in enumerate(pool):
        given = label
        if number in wrong:
            given = str(generator.choice([name for name in classes if name != label]))
        rows.append([link(path, folder / "source" / given, f"{origin}-{number:05d}", folder / "source"), given, origin,
                     int(origin == scenario.target), int(given == label)])  # fmt: skip
    with (folder / "source" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "label", "origin", "matches", "clean"], *rows])
    for role, items in (("target", target), ("test", test)):
        for number, (path, label) in enumerate(items):
            link(path, folder / role / label, f"{number:05d}", folder)


def link(path: Path, folder: Path, name: str, root: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}{path.suffix}"
    place.symlink_to(path.resolve())
    return place.relative_to(root).as_posix()
