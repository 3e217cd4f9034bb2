"""Images of several classes: mosaics of real pictures, on frozen features, ours against pooling and oversampling.

A mosaic shows two to four pictures of one domain of PACS in a 2 x 2 grid, the other places are grey; its labels are
the classes that it shows. The target is 40 mosaics of one domain, the pool 1,000 of the other three, a tenth of it of
the target's domain in some scenarios; of a share of the rows one label is dropped or added. Each method plans, a probe
a class is fitted by the plan, and the test (700 mosaics of the target's domain) is looked at once. Resumable.

    HOMING_DATA=... python benchmarks/multi_label.py --cache DIR --results FILE --seeds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rows import add_row, machine, read_rows
from torch import Tensor

from features import _backbone, _data
from homing.evaluation.baselines import BASELINES
from homing.evaluation.multi_label import predictions_of
from homing.evaluation.resampling import all_once
from homing.pools.decoding import ALLOWED_FORMATS
from homing.rates import Evidence
from homing.rates.learned.one_vs_rest import fit_one_vs_rest, rarest_labels
from homing.rates.learned.probe import with_bias
from homing.training.head import HEAD_RIDGE

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
A_DOMAIN, TILE, BATCH = 1_000, 96, 32
TARGET, POOL, TEST = 40, 1_000, 700
SCENARIOS = (("sketch", 0.0, 0.0), ("sketch", 0.1, 0.0), ("photo", 0.1, 0.3))
METHODS = ("target_only", "pooled", "pooled_oversampled", "hierarchical")
FIGURES = ("mean_average_precision", "micro_f1", "macro_f1", "nll")
REFERENCE = "pooled_oversampled"
ABOUT = {
    "command": "HOMING_DATA=... python benchmarks/multi_label.py --cache DIR --results FILE --seeds 5",
    **machine(),
    "target": TARGET,
    "pool": POOL,
    "test": TEST,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned features")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    features, sets, domains = load_mosaics(arguments.cache)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for target, needle, noise in SCENARIOS:
            evidence, test = draw(features, sets, domains, target, needle, noise, seed)
            name = f"{target} needle {needle:g} noise {noise:g}"
            there = {(row["scenario"], row["seed"], row["method"]) for row in read_rows(arguments.results)}
            for method in arguments.methods:
                if (name, seed, method) not in there:
                    row = {"scenario": name, "seed": seed, "method": method}
                    add_row(row | scored(method, evidence, features[test], sets[test], seed), arguments.results, ABOUT)
    print_table(read_rows(arguments.results))


def load_mosaics(cache: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Features [M, D] of `A_DOMAIN` mosaics a domain, their sets [M, C] and domains [M], scanned once."""
    path = cache / f"mosaics-lite0-{2 * TILE}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(scan(), path)
    return tuple(torch.load(path, weights_only=True))


@torch.inference_mode()
def scan() -> list[Tensor]:
    backbone, generator = _backbone(), np.random.default_rng(0)
    classes = sorted(path.name for path in (_data("pacs") / "pacs" / DOMAINS[0]).iterdir())
    features, sets, domains = [], [], []
    for number, domain in enumerate(DOMAINS):
        files = {name: sorted((_data("pacs") / "pacs" / domain / name).iterdir()) for name in classes}
        for _ in range(A_DOMAIN // BATCH + 1):
            drawn = [mosaic(files, classes, generator) for _ in range(BATCH)]
            features.append(backbone(torch.stack([pixels for pixels, _ in drawn])))
            sets += [shown for _, shown in drawn]
            domains += [number] * BATCH
    return [torch.cat(features).clone(), torch.stack(sets), torch.tensor(domains)]


def mosaic(files: dict[str, list[Path]], classes: list[str], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pixels [3, 192, 192] and the classes shown, bool [C]."""
    whole, shown = Image.new("RGB", (2 * TILE, 2 * TILE), (128, 128, 128)), torch.zeros(len(classes), dtype=torch.bool)
    for place in generator.permutation(4)[: generator.integers(2, 5)]:
        index = int(generator.integers(len(classes)))
        path = files[classes[index]][generator.integers(len(files[classes[index]]))]
        with Image.open(path, formats=ALLOWED_FORMATS) as image:
            tile = image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
        whole.paste(tile, (TILE * int(place % 2), TILE * int(place // 2)))
        shown[index] = True
    pixels = torch.from_numpy(np.array(whole)).permute(2, 0, 1).float() / 255
    return (pixels - 0.5) / 0.5, shown


def draw(
    features: Tensor, sets: Tensor, domains: Tensor, target: str, needle: float, noise: float, seed: int
) -> tuple[Evidence, Tensor]:
    """What a method may see, and the test's rows; by (scenario, seed) alone."""
    generator = torch.Generator().manual_seed(seed)
    own = domains == DOMAINS.index(target)
    inside, others = (rows[torch.randperm(len(rows), generator=generator)] for rows in map(_rows, (own, ~own)))
    few, test = inside[:TARGET], inside[-TEST:]
    hidden = inside[TARGET:-TEST][: round(needle * POOL)]
    pool = torch.cat([hidden, others[: POOL - len(hidden)]])
    given = sets[pool].clone()
    wrong = torch.rand(len(pool), generator=generator) < noise
    flipped = torch.randint(sets.shape[1], (len(pool),), generator=generator)
    given[wrong, flipped[wrong]] ^= True
    counts = given.sum(dim=0)
    evidence = Evidence(
        source_features=features[pool],
        source_labels=rarest_labels(given, counts),
        target_features=features[few],
        target_labels=rarest_labels(sets[few], counts),
        num_classes=sets.shape[1] + 1,
        matches=torch.isin(pool, hidden),
        clean=~wrong,
        source_sets=given,
        target_sets=sets[few],
    )
    return evidence, test


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero().flatten()


def scored(method: str, evidence: Evidence, features: Tensor, sets: Tensor, seed: int) -> dict[str, object]:
    """Plan, fit a probe a class by the plan, and look at the test."""
    began = time.perf_counter()
    plan = BASELINES[method](evidence, seed=seed, target_weight=None)
    center = torch.cat([evidence.held, evidence.target_features]).mean(dim=0)
    seen = with_bias(torch.cat([evidence.held, evidence.target_features]) - center)
    weights = torch.cat([plan.rates.float(), torch.full((evidence.num_target,), float(plan.target_weight))])
    wanted = torch.cat([evidence.source_sets, evidence.target_sets])
    (probe,) = fit_one_vs_rest(seen, wanted, weights[None], ridge=HEAD_RIDGE)
    found = predictions_of((with_bias(features - center) @ probe)[None], sets).figures(all_once(len(sets)))
    row = {name: round(float(found[name]), 4) for name in FIGURES} | {"phi": plan.phi}
    if plan.right is not None:
        clean = evidence.clean
        row |= {"right_where_clean": round(float(plan.right[clean].mean()), 3)}
        row |= {"right_where_wrong": round(float(plan.right[~clean].mean()), 3) if (~clean).any() else None}
    return row | {"seconds": round(time.perf_counter() - began, 1)}


def print_table(rows: list[dict]) -> None:
    """Mean of each figure by scenario and method, and the gain in average precision over the reference."""
    cells, by_pair = defaultdict(list), {(row["scenario"], row["seed"], row["method"]): row for row in rows}
    for row in rows:
        cells[row["scenario"], row["method"]].append(row)
        cells["all", row["method"]].append(row)
    print(f"{'scenario':28}{'method':20}{'mAP':>7}{'micro F1':>10}{'macro F1':>10}{'NLL':>7}   mAP against {REFERENCE}")
    for (scenario, method), found in sorted(cells.items()):
        means = [statistics.mean(row[name] for row in found) for name in FIGURES]
        gains = [
            100 * (row[FIGURES[0]] - by_pair[row["scenario"], row["seed"], REFERENCE][FIGURES[0]])
            for row in found
            if (row["scenario"], row["seed"], REFERENCE) in by_pair
        ]
        spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        shown = "".join(f"{value:{width}.3f}" for value, width in zip(means, (7, 10, 10, 7), strict=True))
        print(f"{scenario:28}{method:20}{shown}   {statistics.mean(gains or [0]):+.1f} ± {spread:.1f} (n={len(gains)})")


if __name__ == "__main__":
    main()
