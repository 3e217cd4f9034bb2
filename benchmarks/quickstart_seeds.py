"""The quickstart over several seeds: each draws its own pools, runs the shipped recipe, and leaves one small row.

Resumable: a seed that has its row is not run again.

    python benchmarks/quickstart_seeds.py --seeds 5
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
from pathlib import Path

from rows import add_row, read_rows

RESULTS = Path(__file__).parent / "results" / "quickstart.json"


def run_once(seed: int) -> dict:
    from homing.flow import run
    from homing.quickstart import draw_pools
    from homing.recipe.reading import read_recipe, shipped_recipes

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_pools(folder / "data", seed)
        roles = [f"data.{role}.path={folder / 'data' / role}" for role in ("source", "target", "test")]
        recipe = read_recipe(shipped_recipes()["quickstart"], [f"seed={seed}", "output.cache=none", *roles])
        result = run(recipe, folder / "run", quiet=True)
        return row_of(seed, result.results, folder / "run")


def row_of(seed: int, results: dict, run_folder: Path) -> dict:
    scores = {results["method"]: results["target"], **results["baselines"]}
    return {
        "seed": seed,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        if any(row["seed"] == seed for row in read_rows(arguments.results)):
            continue
        row = run_once(seed)
        command = f"python benchmarks/quickstart_seeds.py --seeds {arguments.seeds}"
        add_row(row, arguments.results, {"command": command})
        print(seed, row["accuracy"], row["phi"], row["auroc"], flush=True)


if __name__ == "__main__":
    main()
