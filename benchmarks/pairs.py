"""What rows of runs say of two methods: paired differences, their standard error, and where the first is worse."""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import mean, stdev

OURS, CEILING = "hierarchical", "oracle"
NOT_BASELINES = {OURS, CEILING, "instance"}
Cells = dict[tuple[str, int], float]
"""(scenario, seed) to accuracy in percent."""


def cells_of(rows: list[dict], value: str = "accuracy") -> dict[str, Cells]:
    """Each method's runs; a method with changed settings is a method of its own."""
    found: dict[str, Cells] = defaultdict(dict)
    for row in rows:
        changes = "" if not row["changes"] else " " + json.dumps(row["changes"])
        found[row["method"] + changes][row["scenario"], row["seed"]] = row[value]
    return found


def paired(first: Cells, second: Cells) -> dict[str, float | int]:
    """First minus second over the runs that both have.

    Returns:
        mean, standard_error (over runs), worst (mean of the worst scenario), num_worse (scenarios whose mean is below
        -0.5), num_scenarios, n (runs).
    """
    shared = sorted(first.keys() & second.keys())
    gains = [first[key] - second[key] for key in shared]
    by_scenario = defaultdict(list)
    for (scenario, _), gain in zip(shared, gains, strict=True):
        by_scenario[scenario].append(gain)
    means = [mean(values) for values in by_scenario.values()]
    return {
        "mean": round(mean(gains), 2),
        "standard_error": round(stdev(gains) / len(gains) ** 0.5, 2) if len(gains) > 1 else 0.0,
        "worst": round(min(means), 2),
        "num_worse": sum(value < -0.5 for value in means),
        "num_scenarios": len(means),
        "n": len(gains),
    }


def best_of(cells: dict[str, Cells]) -> Cells:
    """Of each scenario and seed, the run of the baseline that is best in that scenario on the mean of its seeds."""
    by_scenario: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for method, runs in cells.items():
        for (scenario, _), value in runs.items():
            by_scenario[scenario][method].append(value)
    found = {}
    for scenario, methods in by_scenario.items():
        best = max(methods, key=lambda method: mean(methods[method]))
        found |= {key: value for key, value in cells[best].items() if key[0] == scenario}
    return found


def print_pairs(rows: list[dict]) -> None:
    """Every method's mean, and ours against each."""
    cells = cells_of(rows)
    baselines = {name: runs for name, runs in cells.items() if name.split(" ")[0] not in NOT_BASELINES}
    for name, runs in cells.items():
        print(f"{name:40s} {mean(runs.values()):6.2f}  n {len(runs)}")
    for ours in (name for name in cells if name.split(" ")[0] == OURS):
        others = {name: runs for name, runs in cells.items() if name != ours}
        others |= {"the best baseline of each scenario": best_of(baselines)} if baselines else {}
        for name, runs in others.items():
            if cells[ours].keys() & runs.keys():
                print(f"{ours} - {name}: {paired(cells[ours], runs)}")
