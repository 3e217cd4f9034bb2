"""The targeting suite, full tier: end-to-end fine-tuning at 96 px, every method at the same budget of gradients.

Each scenario is laid out as image folders of links and set up once a seed; each method is then planned, fine-tuned and
judged on the test images, and leaves one small row. Settings are the same for all scenarios and methods; what `--set`
changes for a question of its own is told in the row. Resumable method by method: what has its row is not done again.

    HOMING_DATA=... python benchmarks/full_tier.py --trainable last_stage --seeds 3
    HOMING_DATA=... python benchmarks/full_tier.py --trainable all --only cartoon --methods pooled_oversampled,oracle
    HOMING_DATA=... python benchmarks/full_tier.py --only usps --methods hierarchical --set training.epochs=0.67
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from layout import Scenario, lay_out, others
from rows import add_row, read_rows

RESULTS = Path(__file__).parent / "results" / "full_tier.json"
METHODS = (
    "target_only",
    "pooled_oversampled",
    "sequential",
    "density_ratio",
    "instance",
    "hierarchical",
    "oracle",
)
SCENARIOS = {
    "cartoon needle 0.1 noise 0.2": Scenario("personalize", "cartoon", others("cartoon"), 0.1, 0.2),
    "sketch needle 0.1 noise 0": Scenario("personalize", "sketch", others("sketch"), 0.1, 0.0),
    "art_painting needle 0 noise 0.4": Scenario("personalize", "art_painting", others("art_painting"), 0.0, 0.4),
    "usps needle 0.1 noise 0.4": Scenario("personalize", "usps", ("mnist", "mnist_m"), 0.1, 0.4, collection="digits"),
    "photo needle 0 noise 0": Scenario("personalize", "photo", others("photo"), 0.0, 0.0),
    "usps needle 0.1 noise 0": Scenario("personalize", "usps", ("mnist", "mnist_m"), 0.1, 0.0, collection="digits"),
    # The pool is of the target's own domain: nothing wrong with it, or its labels alone.
    "mnist plain": Scenario("general", "mnist", (), 0.6, 0.0, shots=10, pool=1500, collection="digits"),
    "cartoon plain": Scenario("general", "cartoon", (), 0.7, 0.0, shots=20, pool=1500),
    "cartoon noise 0.4": Scenario("denoise", "cartoon", (), 0.7, 0.4, pool=1500),
    # 200 classes (`characters.py`), two labelled images of each.
    "200 characters needle 0.03 noise 0.2": Scenario(
        "personalize", "slanted", ("upright",), 0.03, 0.2, 2, 6000, "characters", test=4000, image_size=64
    ),
}
TIERS = {
    "last_stage": list(SCENARIOS)[:5],
    "all": ["cartoon needle 0.1 noise 0.2", "usps needle 0.1 noise 0"],
}
"""What each tier runs by itself; `--only` picks from all scenarios."""
# No flips, since digits do not stand them, and what is set holds for every scenario; the rest is the recipe's.
SETTINGS = ["training.learning_rate=null", "training.augmentation={horizontal_flip: 0, min_scale: 0.6}"]
ABOUT = {
    "command": "HOMING_DATA=... python benchmarks/full_tier.py --trainable TIER --seeds N",
    "settings": SETTINGS,
}
KEY = ("trainable", "scenario", "seed", "method")


def run_missing(
    trainable: str, name: str, seed: int, data: Path, methods: list[str], results: Path, extra: list[str]
) -> None:
    """Set one scenario up, and add the row of each method that has none."""
    from accelerate import Accelerator

    from homing.flow import fit_and_judge
    from homing.preparing import prepare
    from homing.progress import Progress
    from homing.recipe.reading import read_recipe, shipped_recipes
    from homing.session import Session

    scenario = SCENARIOS[name]
    missing = [method for method in methods if (trainable, name, seed, method, *extra) not in done(results)]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(scenario, data, folder / "data", seed)
        roles = [f"data.{role}.path={folder / 'data' / role}" for role in ("source", "target", "test")]
        size = [] if scenario.image_size is None else [f"model.image_size={scenario.image_size}"]
        changes = [f"seed={seed}", f"model.trainable={trainable}", "data.truth={}", *roles, *SETTINGS, *size, *extra]
        recipe = read_recipe(shipped_recipes()[scenario.recipe], changes)
        (folder / "run").mkdir()
        session = Session(Accelerator(), folder / "run", Progress(quiet=True), recipe.seed)
        began = time.monotonic()
        with prepare(recipe, session) as prepared:  # scanned before any method is timed
            scan = time.monotonic() - began
            for method in missing:
                began = time.monotonic()
                outcome = replace(fit_and_judge(method, recipe, session, prepared), seconds=time.monotonic() - began)
                key = dict(zip(KEY, (trainable, name, seed, method), strict=True))
                row = key | {"changes": extra} | row_of(prepared.material, outcome, scan)
                add_row(row, results, ABOUT)
                print(*key.values(), row["accuracy"], f"{row['seconds']:.0f} s", flush=True)


def done(results: Path) -> set[tuple]:
    return {(*(row[part] for part in KEY), *row["changes"]) for row in read_rows(results)}


def row_of(material, outcome, scan: float) -> dict:
    from homing.evaluation.metrics import metrics
    from homing.outputs.provenance import versions
    from homing.outputs.results import judged_labels

    scores = metrics(outcome.logits, judged_labels(material.problem, material.labels))
    rates, pool, plan = outcome.fitted.rates, material.problem.source, outcome.method.rates
    found = versions()
    return {
        **{name: round(scores[name], 4) for name in ("accuracy", "macro_f1", "nll")},
        "num_test": scores["num_test"],
        "target_weight": plan.target_weight,
        "phi": {name: round(value, 4) for name, value in plan.phi.items()},
        "auroc_match": auroc(pool.flags("matches"), rates),
        "auroc_clean": auroc(pool.flags("clean"), rates),
        "gradients": outcome.fitted.gradients,
        "seconds": round(outcome.seconds, 1),
        "planning_seconds": round(outcome.method.seconds, 2),
        "scan_seconds": round(scan, 1),
        "machine": f"{platform.machine()}, {found['threads']} thread",
        "versions": {name: found[name] for name in ("python", "torch", "timm")},
    }


def auroc(truth, rates) -> float | None:
    """How well the final rates tell the two kinds of source rows apart; None where there is one kind, or one rate."""
    from sklearn.metrics import roc_auc_score

    if truth.all() or not truth.any() or bool((rates == rates[0]).all()):
        return None
    return round(float(roc_auc_score(truth, rates)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainable", choices=list(TIERS), action="append", help="default: both, last_stage first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the scenario of this name, or those whose name holds it")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="changes to the settings")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if "HOMING_DATA" not in os.environ:
        sys.exit("HOMING_DATA is not set: point it at a folder with pacs/<domain>/<class>/, digits/<domain>/<digit>/")
    data = Path(os.environ["HOMING_DATA"])
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for trainable in arguments.trainable or TIERS:
            for name in chosen(arguments.only) if arguments.only else TIERS[trainable]:
                run_missing(trainable, name, seed, data, arguments.methods, arguments.results, arguments.set)


def chosen(only: str) -> list[str]:
    """The scenario of this name, or else those whose name holds it ("usps needle 0.1 noise 0" is in two names)."""
    return [only] if only in SCENARIOS else [name for name in SCENARIOS if only in name]


if __name__ == "__main__":
    main()
