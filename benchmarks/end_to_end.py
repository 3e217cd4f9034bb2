"""The shipped recipes end to end on real images: fine-tuning, not frozen features.

Lays out each scenario as image folders of links (nothing is copied), runs the recipe through `homing.run` with its
baselines and the oracle, and keeps one small row a run. Resumable: a run that has its row is not done again.

    HOMING_DATA=... python benchmarks/end_to_end.py --scenario personalize-cartoon --seeds 3
    HOMING_DATA=... python benchmarks/end_to_end.py --table
    python benchmarks/end_to_end.py --scenario quickstart --seeds 5
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "end_to_end.json"
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
    collection: str = "pacs"  # or digits


def others(domain: str) -> tuple[str, ...]:
    return tuple(name for name in DOMAINS if name != domain)


SCENARIOS = {
    "personalize-cartoon": Scenario("personalize", "cartoon", others("cartoon"), 0.1, 0.2),
    "personalize-sketch": Scenario("personalize", "sketch", others("sketch"), 0.1, 0.4),
    "personalize-art-nothing-hidden": Scenario("personalize", "art_painting", others("art_painting"), 0.0, 0.0),
    "denoise-cartoon": Scenario("denoise", "cartoon", (), 0.7, 0.4, pool=1500),
    "general-cartoon": Scenario("general", "cartoon", (), 0.7, 0.0, shots=20, pool=1500),
}


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
    test = left[len(hidden) :]
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


def run_once(name: str, seed: int, data: Path | None, overrides: list[str], wanted: list[str] | None) -> dict:
    from homing.recipe_reader import read_recipe, shipped_recipes
    from homing.run import run

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if name == "quickstart":
            from homing.quickstart import draw_pools

            draw_pools(folder / "data", seed)
            recipe_name, truth = name, []
        else:
            scenario = SCENARIOS[name]
            lay_out(scenario, data, folder / "data", seed)
            recipe_name, truth = scenario.recipe, ["data.truth={}"]
        path = shipped_recipes()[recipe_name]
        own = read_recipe(path).evaluation.baselines
        baselines = wanted if wanted is not None else [*own, *(["oracle"] if "oracle" not in own else [])]
        roles = [f"data.{role}.path={folder / 'data' / role}" for role in ("source", "target", "test")]
        changes = [
            f"seed={seed}",
            "output.cache=none",
            *roles,
            *truth,
            f"evaluation.baselines=[{', '.join(baselines)}]",
            *overrides,
        ]
        result = run(read_recipe(path, changes), folder / "run", quiet=True)
        return row_of(name, seed, overrides, result.results, folder / "run")


def row_of(name: str, seed: int, overrides: list[str], results: dict, run_folder: Path) -> dict:
    scores = {results["method"]: results["target"], **results["baselines"]}
    return {
        "scenario": name,
        "seed": seed,
        "overrides": overrides,
        "accuracy": {method: round(row["accuracy"], 4) for method, row in scores.items()},
        "macro_f1": {method: round(row["macro_f1"], 4) for method, row in scores.items()},
        "nll": {method: round(row["nll"], 4) for method, row in scores.items()},
        "num_test": results["target"]["num_test"],
        "phi": results["rates"]["phi"],
        "effective_sample_size": round(results["rates"]["effective_sample_size"], 1),
        "auroc": separation(run_folder),
        "seconds": results["cost"]["method_seconds"],
        "total_seconds": results["cost"]["seconds"],
        "peak_rss_mb": results["cost"]["peak_rss_mb"],
        "versions": results["versions"],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def separation(run_folder: Path) -> dict[str, float | None]:
    """How well the rates tell matching from other samples, and right from wrong labels (area under the ROC curve)."""
    import pyarrow.parquet as pq
    import yaml
    from sklearn.metrics import roc_auc_score

    rates = pq.read_table(run_folder / "rates.parquet").to_pandas().set_index("sample_id").rate
    source = yaml.safe_load((run_folder / "recipe.yaml").read_text())["data"]["source"]["path"]
    with (Path(source) / "metadata.csv").open() as file:
        truth = {row["file_name"]: row for row in csv.DictReader(file)}
    found: dict[str, float | None] = {}
    for column in ("matches", "clean"):
        values = [int(truth[sample][column]) for sample in rates.index]
        found[column] = round(float(roc_auc_score(values, rates)), 4) if len(set(values)) == 2 else None
    return found


def table(rows: list[dict]) -> str:
    groups = defaultdict(list)
    for row in rows:
        groups[(row["scenario"], *row["overrides"])].append(row)
    lines = []
    for key, members in groups.items():
        methods = [name for name in members[0]["accuracy"] if all(name in row["accuracy"] for row in members)]
        lines.append(f"{' '.join(key)}  (n = {len(members)} seeds, {members[0]['num_test']:,} test images)")
        for method in sorted(methods, key=lambda name: statistics.mean(row["accuracy"][name] for row in members)):
            values = [100 * row["accuracy"][method] for row in members]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            lines.append(
                f"  {method:20} {statistics.mean(values):5.1f} ± {spread:.1f}   [{min(values):.1f}, {max(values):.1f}]"
            )
        gains = [100 * (row["accuracy"]["hierarchical"] - row["accuracy"]["pooled_oversampled"]) for row in members]
        lines.append(f"  ours - pooled_oversampled: {statistics.mean(gains):+.1f}, worst {min(gains):+.1f}")
    return "\n".join(lines)


def read_rows(path: Path) -> list[dict]:
    return json.loads(path.read_text())["rows"] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=["quickstart", *SCENARIOS], action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="changes to the recipe")
    parser.add_argument("--baselines", type=lambda text: text.split(","), help="default: the recipe's, and the oracle")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what was measured so far and stop")
    arguments = parser.parse_args()
    data = Path(os.environ["HOMING_DATA"]) if "HOMING_DATA" in os.environ else None
    if data is None and set(arguments.scenario) - {"quickstart"}:
        sys.exit("HOMING_DATA is not set: point it at a folder with pacs/<domain>/<class>/ images")
    rows = read_rows(arguments.results)
    for seed in range(0 if arguments.table else arguments.seeds):
        for name in arguments.scenario:
            if any((row["scenario"], row["seed"], row["overrides"]) == (name, seed, arguments.set) for row in rows):
                continue
            row = run_once(name, seed, data, arguments.set, arguments.baselines)
            rows = [*read_rows(arguments.results), row]  # another process may have added its own meanwhile
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            content = {"command": "python benchmarks/end_to_end.py --scenario NAME --seeds N", "rows": rows}
            arguments.results.write_text(json.dumps(content, indent=1) + "\n")
            print(name, seed, rows[-1]["accuracy"], rows[-1]["phi"], rows[-1]["auroc"], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
