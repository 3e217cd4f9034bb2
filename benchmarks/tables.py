"""Markdown tables out of the committed results, for README and docs/results.md.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("target_only", "pooled_oversampled", "hierarchical", "oracle")
FAST = ("target_only", "pooled", "pooled_oversampled", "density_ratio", "hierarchical", "oracle")


def end_to_end() -> str:
    groups = defaultdict(list)
    for row in json.loads((RESULTS / "end_to_end.json").read_text())["rows"]:
        groups[" ".join([row["scenario"], *row["overrides"]])].append(row)
    lines = [
        "| scenario | n | target only | pooled, target oversampled | **homing** | oracle |"
        " homing − pooled (worst seed) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in groups.items():
        cells = [_mean_and_spread([100 * row["accuracy"][m] for row in rows if m in row["accuracy"]]) for m in COLUMNS]
        gains = [100 * (row["accuracy"]["hierarchical"] - row["accuracy"]["pooled_oversampled"]) for row in rows]
        gain = f"{statistics.mean(gains):+.1f} ({min(gains):+.1f})"
        lines.append(f"| {name} | {len(rows)} | {cells[0]} | {cells[1]} | **{cells[2]}** | {cells[3]} | {gain} |")
    return "\n".join(lines)


def fast_tier() -> str:
    content = json.loads((RESULTS / "suite_fast.json").read_text())
    lines = [f"| scenario | {' | '.join(FAST)} |", f"|---|{'---|' * len(FAST)}"]
    for item in content["scenarios"]:
        cells = [f"{item['methods'][method]['accuracy']:.1f}" if method in item["methods"] else "–" for method in FAST]
        lines.append(f"| {item['scenario']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}" + ("" if len(values) > 1 else " (n = 1)")


if __name__ == "__main__":
    print(end_to_end() if (RESULTS / "end_to_end.json").exists() else "no end_to_end.json")
    print()
    print(fast_tier() if (RESULTS / "suite_fast.json").exists() else "no suite_fast.json")
