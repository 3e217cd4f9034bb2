"""Which number best tells matching from other samples, and right from wrong labels? Each against the truth.

The descriptors in use beside what could replace them: nearest neighbours, an MLP, and alignments with the target's
gradient, as they are and whitened. Seeds start at 100: nothing is chosen on the draws that the suite reports.

    HOMING_DATA=... python benchmarks/descriptor_rules.py --cache DIR [--seeds 2] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

import torch
from scenarios import all_scenarios, draw_study
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from features import load_bank
from homing.rates import Evidence
from homing.rates.learned.consistency import label_consistency, pool_consistency
from homing.rates.learned.learner import WIDTH
from homing.rates.learned.likeness import target_likeness
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias

FIRST_SEED = 100
NEIGHBOURS = 5
HIDDEN, STEPS, RATE, DECAY = 64, 60, 1e-2, 1e-2
RIDGE = 0.05
DAMPING = 0.1  # of the mean eigenvalue, in the whitening of alignments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {"match": {}, "clean": {}, "clean_among_matching": {}}
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for scenario in all_scenarios():
            evidence = draw_study(scenario, load_bank(scenario.bank, arguments.cache), seed).evidence.projected(WIDTH)
            for name, score in scores(evidence, seed).items():
                for truth, area in areas(evidence, score).items():
                    found[truth].setdefault(name, []).append(area)
            print(scenario.name, seed, file=sys.stderr)
    table = {
        truth: {name: {"n": len(a), "mean": round(mean(a), 4), "worst": round(min(a), 4)} for name, a in rows.items()}
        for truth, rows in found.items()
    }
    for truth, rows in table.items():
        print(f"\narea under the ROC curve, {truth}")
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["mean"]):
            print(f"  {name:30s} mean {row['mean']:.3f}  worst {row['worst']:.3f}  n {row['n']}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(table, indent=1) + "\n")


def areas(evidence: Evidence, score: Tensor) -> dict[str, float]:
    """How well a score tells each truth that has two sides in this study."""
    assert evidence.matches is not None
    assert evidence.clean is not None
    matching = evidence.matches
    truths = {
        "match": (matching, torch.ones_like(matching)),
        "clean": (evidence.clean, torch.ones_like(matching)),
        "clean_among_matching": (evidence.clean, matching),
    }
    return {
        name: float(roc_auc_score(truth[among], score[among]))
        for name, (truth, among) in truths.items()
        if bool(truth[among].any()) and not bool(truth[among].all())
    }


def scores(evidence: Evidence, seed: int) -> dict[str, Tensor]:
    """Every candidate's score of each source row `[N]`."""
    likeness, pool = target_likeness(evidence, seed), pool_consistency(evidence, seed)
    raw, whitened = alignments(evidence)
    return {
        "likeness (in use)": likeness.log_ratio,
        "likeness: neighbours": neighbour_likeness(evidence),
        "likeness: MLP ratio": mlp_likeness(evidence, seed),
        "consistency (in use)": label_consistency(evidence, likeness.match, pool, seed).log_probability,
        "consistency: pool alone": pool.log_probability,
        "consistency: neighbours": neighbour_consistency(evidence),
        "alignment": raw,
        "alignment, whitened": whitened,
    }


def neighbour_likeness(evidence: Evidence) -> Tensor:
    """Mean cosine to the nearest target images."""
    cosines = functional.normalize(evidence.source_features) @ functional.normalize(evidence.target_features).T
    return cosines.topk(min(NEIGHBOURS, evidence.num_target), dim=1).values.mean(dim=1)


def neighbour_consistency(evidence: Evidence) -> Tensor:
    """Share of a row's nearest source rows that have its label."""
    unit = functional.normalize(evidence.source_features)
    nearest = (unit @ unit.T).fill_diagonal_(-1).topk(4 * NEIGHBOURS, dim=1).indices
    return (evidence.source_labels[nearest] == evidence.source_labels[:, None]).float().mean(dim=1)


def mlp_likeness(evidence: Evidence, seed: int) -> Tensor:
    """Out-of-fold log-odds of target against source by a small network, pools weighted alike."""
    fold = torch.randperm(evidence.num_source, generator=torch.Generator().manual_seed(seed)) % NEIGHBOURS
    score = torch.zeros(evidence.num_source)
    target = evidence.target_features
    for number in range(NEIGHBOURS):
        torch.manual_seed(seed)
        seen = evidence.source_features[fold != number]
        model = torch.nn.Sequential(
            torch.nn.Linear(target.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            loss = functional.softplus(model(seen)).mean() + functional.softplus(-model(target)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            held_out = model(evidence.source_features[fold == number]).squeeze(1)
        score[fold == number] = held_out - held_out.mean()
    return score


def alignments(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """⟨target's gradient, row's gradient⟩ under a probe of the pool, as it is and with features whitened.

    Centred within each class, as the engine's users do.
    """
    features, target = with_bias(evidence.source_features), with_bias(evidence.target_features)
    weights = fit_probes(
        features, evidence.source_labels, torch.ones(1, len(features)), evidence.num_classes, ridge=RIDGE
    )[0]

    def residuals(rows: Tensor, labels: Tensor) -> Tensor:
        return log_probabilities(rows, weights).exp() - functional.one_hot(labels, evidence.num_classes)

    source = residuals(features, evidence.source_labels)
    direction = target.T @ residuals(target, evidence.target_labels)
    covariance = features.T @ features / len(features)
    damping = DAMPING * covariance.diagonal().mean() * torch.eye(len(covariance))
    whitened = torch.linalg.solve(covariance + damping, direction)
    return tuple(  # type: ignore[return-value]
        _centred(((features @ vector) * source).sum(dim=1), evidence.source_labels) for vector in (direction, whitened)
    )


def _centred(values: Tensor, labels: Tensor) -> Tensor:
    centred = values.clone()
    for label in labels.unique():
        centred[labels == label] -= values[labels == label].mean()
    return centred


if __name__ == "__main__":
    main()
