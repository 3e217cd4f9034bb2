"""Learn rates over features that lie on disk: classes, a hidden matching share, wrong labels, all of them known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scale import stopwatch
from torch import Tensor

from homing.rates.learned.evidence import Evidence
from homing.rates.learned.learner import learn_rates

SHARD_ROWS = 50_000
INNER = 64  # columns that hold the structure; the others hold noise
MATCHING, WRONG, SHOTS = 0.02, 0.1, 5
BASE = 50_000

CASES = [
    {"rows": 50_000, "classes": 1_000, "width": 1_280},
    {"rows": 100_000, "classes": 200, "width": 256},
    {"rows": 1_000_000, "classes": 1_000, "width": 1_280},
    {"rows": 10_000_000, "classes": 1_000, "width": 256},
]


@dataclass(frozen=True)
class Shards:
    """Features in files of `SHARD_ROWS` rows, float16, read anew whenever rows are asked for."""

    folder: Path
    num_rows: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.num_rows, self.width

    def __len__(self) -> int:
        return self.num_rows

    def rows(self, rows: slice | Tensor) -> Tensor:
        """float32 `[m, D]`."""
        which = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        found = torch.empty(len(which), self.width)
        shard = which // SHARD_ROWS
        for number in shard.unique().tolist():
            inside = (shard == number).nonzero().flatten()
            found[inside] = self._read(number, which[inside] - number * SHARD_ROWS).float()
        return found

    def _read(self, number: int, rows: Tensor) -> Tensor:
        """Plain reads where rows follow one another; else through a map that is dropped at once."""
        path = self.folder / f"{number:04d}.npy"
        first, last = int(rows.min()), int(rows.max()) + 1
        if last - first == len(rows) and bool((rows.diff() == 1).all()):
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                file.seek(first * self.width * 2, 1)
                values = np.fromfile(file, dtype=np.float16, count=len(rows) * self.width)
            return torch.from_numpy(values.reshape(len(rows), self.width))
        return torch.from_numpy(np.load(path, mmap_mode="r")[rows.numpy()])


class World:
    """Where classes lie, in the pool's domain and in the target's."""

    def __init__(self, classes: int, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.classes, self.width = classes, width
        self.means = 0.55 * torch.randn(classes, INNER, generator=generator)
        self.turn = 0.3 * torch.randn(classes, INNER, generator=generator)
        shift = torch.randn(INNER, generator=generator)
        self.shift = 2.5 * shift / shift.norm()
        self.basis = torch.linalg.qr(torch.randn(width, INNER, generator=generator))[0]

    def features(self, labels: Tensor, matches: Tensor, generator: torch.Generator) -> Tensor:
        """`[m, D]` of rows of these classes, in the one domain or the other."""
        inner = self.means[labels] + matches[:, None] * (self.turn[labels] + self.shift)
        inner += torch.randn(len(labels), INNER, generator=generator)
        return inner @ self.basis.T + 0.05 * torch.randn(len(labels), self.width, generator=generator) + 0.3

    def shard(self, number: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, given labels, which rows match, which labels are right: the same for the same number."""
        generator = torch.Generator().manual_seed(1 + number)
        labels = torch.randint(self.classes, (count,), generator=generator)
        matches = torch.rand(count, generator=generator) < MATCHING
        clean = torch.rand(count, generator=generator) >= WRONG
        step = torch.randint(1, self.classes, (count,), generator=generator)
        given = torch.where(clean, labels, (labels + step) % self.classes)
        return self.features(labels, matches.float(), generator), given, matches, clean


def pool(cache: Path, rows: int, classes: int, width: int) -> Evidence:
    """The pool on disk, made where it is not there, beside a target of `SHOTS` images of every class."""
    world, folder = World(classes, width), cache / f"rates-{rows}-{classes}-{width}"
    done = folder / "done.json"
    counts = [min(SHARD_ROWS, rows - first) for first in range(0, rows, SHARD_ROWS)]
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        facts = []
        for number, count in enumerate(counts):
            features, *known = world.shard(number, count)
            np.save(folder / f"{number:04d}.npy", features.half().numpy())
            facts.append(known)
        names = ("labels", "matches", "clean")
        torch.save(
            {n: torch.cat(list(part)) for n, part in zip(names, zip(*facts, strict=True), strict=True)},
            folder / "facts.pt",
        )
        done.write_text(json.dumps({"rows": rows}))
    known = torch.load(folder / "facts.pt")
    generator = torch.Generator().manual_seed(0)
    target_labels = torch.arange(SHOTS * classes) % classes
    target = world.features(target_labels, torch.ones(len(target_labels)), generator)
    shards = Shards(folder, rows, width)
    return Evidence(shards, known["labels"], target, target_labels, classes, known["matches"], known["clean"])


def area(scores: Tensor, truth: Tensor) -> float:
    """AUROC by ranks; no tie of floats matters here."""
    order = scores.argsort()
    ranks = torch.empty(len(scores), dtype=torch.float64)
    ranks[order] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    positive = int(truth.sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def measure(cache: Path, rows: int, classes: int, width: int) -> dict:
    evidence = pool(cache, rows, classes, width)
    threads, watch = torch.get_num_threads(), stopwatch()
    plan = learn_rates(evidence)
    found = watch.read()
    assert evidence.matches is not None
    assert evidence.clean is not None
    matching = evidence.matches & evidence.clean
    return found | {
        "threads": threads,
        "auroc_match": round(area(plan.descriptors["target_likeness"], evidence.matches), 4),
        "auroc_right": round(area(plan.descriptors["label_consistency"], evidence.clean), 4),
        "rate_of_matching": round(float(plan.rates[matching].mean()), 3),
        "rate_of_wrong": round(float(plan.rates[~evidence.clean].mean()), 3),
        "phi": {name: round(value, 4) for name, value in plan.phi.items()},
    }
