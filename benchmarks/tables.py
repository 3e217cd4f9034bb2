"""Markdown tables out of the committed results, for README, docs/results.md and docs/reliability.md.

python benchmarks/tables.py            # print them
python benchmarks/tables.py --write    # put each between its markers in these
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

from rows import read_rows

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGES = ("README.md", "docs/results.md", "docs/reliability.md")
OURS, YARDSTICK, CEILING = "hierarchical", "pooled_oversampled", "oracle"
NO_BASELINE = {OURS, "instance", CEILING}
WORTH_CLOSING = 1.0  # points between yardstick and ceiling below which no share of the gap is told
TITLES = {
    OURS: "**homing**",
    YARDSTICK: "pooled, target oversampled",
    "meta_weight_net": "Meta-Weight-Net",
    "l2rw": "L2RW",
}
FULL = ("target_only", YARDSTICK, "sequential", "density_ratio", "instance", OURS, CEILING)
FAST = ("target_only", YARDSTICK, "sequential", "density_ratio", "l2rw", "meta_weight_net", "instance", OURS, CEILING)
CORRUPT = (YARDSTICK, "l2rw", "meta_weight_net", "instance", OURS, CEILING)
PLAIN = ("pooled", "instance", OURS)
FIRST_OF_TRIALS = 100  # seeds from here on are for choosing settings
KINDS = {
    "nothing matches, labels right": lambda hidden, wrong: not hidden and not wrong,
    "nothing matches, labels wrong": lambda hidden, wrong: not hidden and wrong,
    "matches hidden, labels right": lambda hidden, wrong: hidden and not wrong,
    "matches hidden, labels wrong": lambda hidden, wrong: hidden and wrong,
}
"""What is in the pool → whether shares of matching images and of wrong labels are of that kind."""
WHERE = {"alike": "of the pool's domain", "shifted": "of another"}
BY_KIND = ("scenarios", "ours − best baseline: mean, worst", "oracle − best baseline: mean")

Cells = dict[str, list[float]]
"""Method to its accuracies in %, one a seed."""


def quickstart() -> str:
    rows = json.loads((RESULTS / "quickstart.json").read_text())["rows"]
    methods = ("target_only", YARDSTICK, OURS, CEILING)
    cells = {name: [100 * row["accuracy"][name] for row in rows] for name in methods}
    return _table(methods, [("quickstart", cells)], first="")


def full_tier() -> str:
    """Every scenario at the settings of all."""
    groups = _groups(lambda row: not row["changes"] and " needle " in row["scenario"])
    return _table(FULL, _named(groups), verdict=True)


def second_backbone() -> str:
    """The last stage of MobileNetV2 (`mobilenet.py`)."""
    groups = _groups(lambda row: any(change.startswith("model.backbone=local-dir") for change in row["changes"]))
    methods = tuple(method for method in FULL if method != "instance")
    return _table(methods, _named(groups), verdict=True)


def efficiency() -> str:
    """A third of the steps, against the yardstick's accuracy after all of them."""
    whole = _groups(lambda row: not row["changes"])
    third = _groups(lambda row: row["changes"] == ["training.epochs=0.667"])
    lines = [
        "| scenario | pooled, target oversampled, all steps | **homing**, a third of them | difference, by seed |",
        "|---|---|---|---|",
    ]
    for (trainable, scenario), cells in third.items():
        theirs, ours = whole[trainable, scenario][YARDSTICK], cells[OURS]
        gains = ", ".join(f"{a - b:+.1f}" for a, b in zip(ours, theirs, strict=False))
        lines.append(f"| {trainable}: {_short(scenario)} | {_spread(theirs)} | {_spread(ours)} | {gains} |")
    return "\n".join(lines)


def corrupt() -> str:
    groups = _groups(lambda row: row["scenario"] == "cartoon noise 0.4")
    return _table(CORRUPT, _named(groups))


def plain() -> str:
    backbones = defaultdict(lambda: defaultdict(list))
    for row in _rows():
        if row["scenario"] == "mnist plain":
            backbone = next(change.split("=")[1] for change in row["changes"] if change.startswith("model.backbone"))
            backbones[backbone][row["method"]].append(100 * row["accuracy"])
    return _table(PLAIN, list(backbones.items()), first="backbone, from scratch")


def fast_tier() -> str:
    """Probes on frozen features, by kind of scenario; the mean over seeds is one cell of a scenario."""
    scenarios = json.loads((RESULTS / "suite_fast.json").read_text())["scenarios"]
    lines = [_head("what is trained, and on what", FAST, *BY_KIND)]
    for title, key in (("linear", "accuracy"), ("MLP", "accuracy_mlp")):
        means = {
            item["scenario"]: {method: found[key] for method, found in item["methods"].items() if key in found}
            for item in scenarios
        }
        lines += _by_kind(title, FAST, means)
    return "\n".join(lines)


def suite_runs() -> str:
    """Runs of the whole suite, by what was busy beside them."""
    groups = defaultdict(list)
    for row in read_rows(RESULTS / "suite_runs.json"):
        groups[row["busy"]].append(row)
    lines = [
        "| busy processes beside it | runs | green | minutes | CPU minutes | commits | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for busy, rows in sorted(groups.items()):
        minutes, cpu = (_spread([row[key] / 60 for row in rows]) for key in ("seconds", "cpu_seconds"))
        commits, failed = len({row["commit"] for row in rows}), sorted({name for row in rows for name in row["names"]})
        green = sum(row["exit"] == 0 for row in rows)
        told = ", ".join(f"`{name}`" for name in failed) or "–"
        lines.append(f"| {busy} | {len(rows)} | {green} | {minutes} | {cpu} | {commits} | {told} |")
    return "\n".join(lines)


def bed() -> str:
    """The last stage on kept activations, by kind of scenario: seeds below 100 at the settings of all."""
    cells = defaultdict(lambda: defaultdict(list))
    for row in json.loads((RESULTS / "bed.json").read_text())["rows"]:
        if not row["changes"] and row["seed"] < FIRST_OF_TRIALS:
            cells[row["scenario"]][row["method"]].append(row["accuracy"])
    means = {
        name: {method: statistics.mean(values) for method, values in methods.items()} for name, methods in cells.items()
    }
    head = _head("", FAST, *BY_KIND)
    return "\n".join([head, *_by_kind("last stage", FAST, means)])


def _by_kind(title: str, methods: tuple[str, ...], means: dict[str, dict[str, float]]) -> list[str]:
    """A line for each kind of pool: the mean over its scenarios, and how far ours stands from the best of each."""
    lines = []
    for kind, holds in KINDS.items():
        chosen = {
            name: found
            for name, found in means.items()
            if holds(*_hidden_and_wrong(name)) and {OURS, YARDSTICK} <= {*found}
        }
        if not chosen:
            continue
        cells = [_mean_of([found.get(method) for found in chosen.values()]) for method in methods]
        best = [max(found[name] for name in found.keys() - NO_BASELINE) for found in chosen.values()]
        ours = [found[OURS] - other for found, other in zip(chosen.values(), best, strict=True)]
        true = [found[CEILING] - other for found, other in zip(chosen.values(), best, strict=True) if CEILING in found]
        cells += [str(len(chosen)), f"{statistics.mean(ours):+.1f}, {min(ours):+.1f}"]
        cells.append(f"{statistics.mean(true):+.1f}" if len(true) == len(best) else "–")
        lines.append(f"| {title}: {kind} | {' | '.join(cells)} |")
    return lines


def _hidden_and_wrong(scenario: str) -> tuple[float, float]:
    """Shares of a scenario by its name: of matching images, and of wrong labels."""
    found = re.search(r"needle (\S+) noise (\S+)", scenario)
    assert found is not None, scenario
    return float(found[1]), float(found[2])


def _mean_of(values: list[float | None]) -> str:
    """Of methods that were run on all scenarios of a kind alone: means over others are no comparison."""
    return "–" if None in values else f"{statistics.mean(values):.1f}"


def many_classes() -> str:
    """`head` beside converged regressions on the same features and rates, homing's; means over seeds."""
    groups = defaultdict(list)
    for row in read_rows(RESULTS / "many_classes.json"):
        if row["method"] == "homing":
            groups[row["classes"], row["customer"]].append(row)
    lines = [
        "| classes | the target is | `head` before | **`head`** | nats | best regression, seen on the test | nats "
        "| called wrong, % | pool | n |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (classes, customer), rows in groups.items():
        before, ends = [row["regression"]["0.5"][0] for row in rows], [row["end"] for row in rows]
        accuracy = [max(found for found, _ in row["regression"].values()) for row in rows]
        nats = [min(found for _, found in row["regression"].values()) for row in rows]
        wrong, pool = [row["called_wrong"] for row in rows], statistics.mean(row["pool"] for row in rows)
        told = [_mean_of(before), _mean_of([end[0] for end in ends]), f"{statistics.mean(end[1] for end in ends):.3f}"]
        told += [_mean_of(accuracy), f"{statistics.mean(nats):.3f}", f"{statistics.mean(wrong):.2f}", f"{pool:,.0f}"]
        lines.append(f"| {classes} | {WHERE[customer]} | {' | '.join(told)} | {len(rows)} |")
    return "\n".join(lines)


TABLES = {
    "many-classes": many_classes,
    "suite-runs": suite_runs,
    "quickstart": quickstart,
    "full-tier": full_tier,
    "second-backbone": second_backbone,
    "efficiency": efficiency,
    "corrupt": corrupt,
    "plain": plain,
    "fast-tier": fast_tier,
    "bed": bed,
}


def _rows() -> list[dict]:
    return json.loads((RESULTS / "full_tier.json").read_text())["rows"]


def _groups(wanted) -> dict[tuple[str, str], Cells]:
    """(trainable, scenario) to its cells, of the rows that are wanted, seeds in order."""
    groups = defaultdict(lambda: defaultdict(list))
    for row in sorted(_rows(), key=lambda row: (row["trainable"] == "all", row["seed"])):
        if wanted(row):
            groups[row["trainable"], row["scenario"]][row["method"]].append(100 * row["accuracy"])
    return groups


def _named(groups: dict[tuple[str, str], Cells]) -> list[tuple[str, Cells]]:
    return [(f"{trainable}: {_short(scenario)}", cells) for (trainable, scenario), cells in groups.items()]


def _table(
    methods: tuple[str, ...], rows: list[tuple[str, Cells]], *, first: str = "scenario", verdict: bool = False
) -> str:
    more = ("ours − best baseline", "gap closed") if verdict else ()
    lines = [_head(first, methods, "n", *more)]
    for name, cells in rows:
        values = [_spread(cells.get(method, [])) for method in methods]
        lines.append(
            f"| {' | '.join([name, *values, str(len(cells.get(OURS, []))), *(_verdict(cells) if verdict else [])])} |"
        )
    return "\n".join(lines)


def _head(first: str, methods: tuple[str, ...], *more: str) -> str:
    names = [first, *(TITLES.get(method, method.replace("_", " ")) for method in methods), *more]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _verdict(cells: Cells) -> list[str]:
    """How far ours stands from the best baseline, and what share of the gap to the oracle it closes."""
    means = {method: statistics.mean(values) for method, values in cells.items()}
    if OURS not in means:
        return ["–", "–"]
    best = max((method for method in means if method not in NO_BASELINE), key=means.__getitem__)
    gap = means[CEILING] - means[YARDSTICK] if CEILING in means else 0.0
    closed = f"{100 * (means[OURS] - means[YARDSTICK]) / gap:.0f} %" if gap > WORTH_CLOSING else "–"
    return [f"{means[OURS] - means[best]:+.1f} ({best.replace('_', ' ')})", closed]


def _short(scenario: str) -> str:
    return re.sub(r"needle (\S+) noise (\S+)", lambda found: f"{float(found[1]):g} / {float(found[2]):g}", scenario)


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def write() -> None:
    """Put each table between its markers, wherever they stand."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        for name, table in TABLES.items():
            marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            if marked.search(text):
                content = table()
                text = marked.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)  # noqa: B023
        (ROOT / page).write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        write()
    else:
        print("\n\n".join(f"{name}\n{table()}" for name, table in TABLES.items()))
