"""What a run came to, for a terminal: figures, whether it was worth it, warnings, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homing.measures import MEASURES, headline_of
from homing.outputs.report.keeping import shipped_line
from homing.outputs.report.verdict import scores, verdict
from homing.outputs.titles import phi_title, title_of
from homing.terminal import counted, in_a_line


def summary(folder: Path, results: dict[str, Any]) -> str:
    """All that `homing run` says in the end.

    Args:
        folder: Of the run.
        results: Of its `results.json`.
    """
    if folder.suffix.lower() in (".parquet", ".csv"):  # the rates alone were asked for
        return "\n".join([rates_table(results), *_told(results["warnings"]), "", f"rates: {folder}"])
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
        report = folder / "report.html"
        warnings, where = results["warnings"], f"report: {report if report.exists() else f'homing report {folder}'}"
        table = rates_table(results) if results["target"] is None else results_table(results)
    if results.get("unlabelled"):
        where += f"; label next: {folder / 'labels_wanted.csv'}"
    return "\n".join([table, *_told(warnings), "", where])


def _told(warnings: Sequence[str]) -> list[str]:
    return [f"warning: {in_a_line(text)}" for text in dict.fromkeys(warnings)]


def rates_table(results: dict[str, Any]) -> str:
    """What a run found that stopped after the rates: how many samples count, and the numbers behind the rates."""
    total, phi = results["data"]["source"]["num_samples"], results["rates"]["phi"]
    size = results["rates"]["effective_sample_size"]
    lines = [f"{total:,} source samples rated; effective sample size {size:,.0f} ({100 * size / total:.0f} %)"]
    lines += [f"  {phi_title(name):28}{value:10.4g}" for name, value in phi.items()]
    return "\n".join(lines)


def targets_table(results: dict[str, Any]) -> str:
    """Several targets of one source: what each got, and which of them share data."""
    width = max(12, *(len(name) for name in results["targets"])) + 2
    measure = headline_of(results)
    lines = [f"{'target':{width}}{'images':>7}{'effective sample size':>23}{measure.word:>19}"]
    for name, row in results["targets"].items():
        value = row.get(measure.key)
        shown = "–" if value is None else measure.write(value)
        lines.append(f"{name:{width}}{row['num_target']:7,}{row['effective_sample_size']:23,.0f}{shown:>19}")
    lines += ["", f"{'who shares data':{2 * width}}{'rank correlation':>17}{'common mass':>13}"]
    for pair in results["pairs"]:
        correlation = "–" if pair["rank_correlation"] is None else f"{pair['rank_correlation']:.2f}"
        lines.append(f"{pair['a']:{width}}{pair['b']:{width}}{correlation:>17}{pair['common_mass']:13.1%}")
    return "\n".join(lines)


def results_table(results: dict[str, Any]) -> str:
    """One row a method, worst first, the run's own marked: what they are judged by, its 95 % interval, NLL."""
    own = results["method"]
    images = f"{results['target']['num_test']:,} " + (
        "test images" if results.get("headline") == "test" else "target images, cross-validated"
    )
    listed = scores(results)
    measure = listed[0].measure
    width, last = max(9, len(measure.word)), "accuracy" if measure.key == "nll" else "nll"
    head = f"{'':2}{'method':28}{measure.word:>{width}}   {'95 % interval':16}{MEASURES[last].word:>8}   on {images}"
    lines = [head]
    for row in reversed(listed):
        title, other = title_of(own) if row.is_run else row.title, MEASURES[last].write(row.values[last])
        mark = "→ " if row.is_run else "  "
        lines.append(f"{mark}{title:28}{row.text:>{width}}   {row.interval:16}{other:>8}")
    found = verdict(listed, results.get("models"))
    return "\n".join([*lines, "", f"{found.title}: {found.text}", *filter(None, [shipped_line(results)])])


def score_lines(score: dict[str, Any]) -> list[str]:
    """What `homing evaluate` says: the figures, then the classes, worst first."""
    known = [measure for measure in MEASURES.values() if score.get(measure.key) is not None]
    head, width = [counted(score["num_test"], "image")], max(18, *(len(measure.word) + 2 for measure in known))
    for measure in known:
        low, high = (measure.plain(end) for end in score[f"{measure.key}_interval"])
        head.append(f"{measure.word:{width}}{measure.write(score[measure.key])} [{low}, {high}]")
    head.append(f"{'calibration error':{width}}{score['ece']:.3f}")
    if found := score.get("calibrated"):
        at = f"at the model's temperature of {found['temperature']:.2f}"
        head.append(f"{at}: calibration error {found['ece']:.3f}, NLL {found['nll']:.3f}")
    dropped = [in_a_line(f"left out: {item['image']}: {item['reason']}") for item in score["dropped"]]
    figure = "average_precision" if "mean_average_precision" in score else "accuracy"
    classes = sorted(score["per_class"].items(), key=lambda item: item[1][figure])
    write = MEASURES["accuracy"].write
    rows = [f"  {in_a_line(name):28}{write(row[figure]):>8} of {row['num_test']:,}" for name, row in classes]
    return [*head, *dropped, *rows]
