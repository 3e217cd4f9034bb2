"""What a run came to, for a terminal: figures, whether it was worth it, warnings, and where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from homing.outputs.report.keeping import shipped_line
from homing.outputs.report.verdict import scores, verdict
from homing.outputs.titles import phi_title, title_of
from homing.terminal import in_a_line


def summary(folder: Path, results: dict[str, Any]) -> str:
    """All that `homing run` says in the end.

    Args:
        folder: Of the run.
        results: Of its `results.json`.
    """
    if "targets" in results:
        warnings = [f"{name}: {text}" for name, row in results["targets"].items() for text in row["warnings"]]
        table = targets_table(results)
        where = f"rates: {folder / 'NAME' / 'rates.parquet'}; who shares data: {folder / 'targets.csv'}"
    elif "asked" in results:
        warnings, table = results["warnings"], rates_table(results)
        where = f"rates: {folder / 'rates.parquet'}; report: {folder / 'report.html'}"
    elif results["headline"] == "none":
        warnings, table = results["warnings"], rates_table(results)
        where = f"rates: {folder / 'rates.parquet'}; next: homing corpus {folder} --output DIR"
    else:
        warnings, where = results["warnings"], f"report: {folder / 'report.html'}"
        table = rates_table(results) if results["target"] is None else results_table(results)
    if results.get("unlabelled"):
        where += f"; label next: {folder / 'labels_wanted.csv'}"
    return "\n".join([table, *(f"warning: {in_a_line(text)}" for text in dict.fromkeys(warnings)), "", where])


def rates_table(results: dict[str, Any]) -> str:
    """What a run found that stopped after the rates: how many samples count, and the numbers behind the rates."""
    total, phi = results["data"]["source"]["num_samples"], results["rates"]["phi"]
    size = results["rates"]["effective_sample_size"]
    lines = [f"{total:,} source samples rated; effective sample size {size:,.0f} ({size / total:.0%})"]
    lines += [f"  {phi_title(name):28}{value:10.4g}" for name, value in phi.items()]
    return "\n".join(lines)


def targets_table(results: dict[str, Any]) -> str:
    """Several targets of one source: what each got, and which of them share data."""
    width = max(12, *(len(name) for name in results["targets"])) + 2
    lines = [f"{'target':{width}}{'images':>7}{'effective sample size':>23}{'accuracy':>10}"]
    for name, row in results["targets"].items():
        accuracy = "–" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        lines.append(f"{name:{width}}{row['num_target']:7,}{row['effective_sample_size']:23,.0f}{accuracy:>10}")
    lines += ["", f"{'who shares data':{2 * width}}{'rank correlation':>17}{'common mass':>13}"]
    for pair in results["pairs"]:
        correlation = "–" if pair["rank_correlation"] is None else f"{pair['rank_correlation']:.2f}"
        lines.append(f"{pair['a']:{width}}{pair['b']:{width}}{correlation:>17}{pair['common_mass']:13.1%}")
    return "\n".join(lines)


def results_table(results: dict[str, Any]) -> str:
    """One row a method, worst first, the run's own marked: accuracy, its 95 % interval, NLL."""
    own = results["method"]
    rows = {**results["baselines"], own: results["target"]}
    images = f"{results['target']['num_test']:,} " + (
        "test images" if results.get("headline") == "test" else "target images, cross-validated"
    )
    lines = [f"{'':2}{'method':28}{'accuracy':>9}   {'95 % interval':15}{'NLL':>7}   on {images}"]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["accuracy"]):
        low, high = row["accuracy_interval"]
        mark = "→ " if name == own else "  "
        title = title_of(name)
        lines.append(f"{mark}{title:28}{row['accuracy']:9.1%}   [{low:.1%}, {high:.1%}] {row['nll']:7.3f}")
    found = verdict(scores(results), results.get("models"))
    return "\n".join([*lines, "", f"{found.title}: {found.text}", *filter(None, [shipped_line(results)])])


def score_lines(score: dict[str, Any]) -> list[str]:
    """What `homing evaluate` says: the figures, then the classes, worst first."""
    low, high = score["accuracy_interval"]
    head = [
        f"accuracy {score['accuracy']:.1%} [{low:.1%}, {high:.1%}] on {score['num_test']:,} images",
        f"macro F1 {score['macro_f1']:.3f}   NLL {score['nll']:.3f}   calibration error {score['ece']:.3f}",
    ]
    dropped = [in_a_line(f"left out: {item['image']}: {item['reason']}") for item in score["dropped"]]
    classes = sorted(score["per_class"].items(), key=lambda item: item[1]["accuracy"])
    rows = [f"  {in_a_line(name):28}{row['accuracy']:7.1%} of {row['num_test']:,}" for name, row in classes]
    return [*head, *dropped, *rows]
