"""What a run came to, in one line and as a small table for a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from homing.measures import Measure, headline_of
from homing.outputs.titles import title_of
from homing.terminal import counted


def in_short(results: dict[str, Any]) -> str:
    """One line: what the run is judged by with its interval, or what there is instead."""
    if not results:
        return "the first process has the results"
    if "targets" in results:
        return f"{counted(len(results['targets']), 'target')}: {', '.join(results['targets'])}"
    score = results.get("target")
    if score is not None:
        measure = headline_of(results)
        figures = f"{measure.word} {measure.write(score[measure.key])} [{_interval(measure, score)}]"
        return f"{title_of(results['method'])}, {figures} on {counted(score['num_test'], 'image')}"
    source = results.get("data", {}).get("source", {}).get("num_samples")
    what = "rates only" if results.get("headline") == "none" else "not measured"
    return what if source is None else f"{what}, {counted(source, 'source sample')}"


def as_html(folder: Path, results: dict[str, Any]) -> str:
    """The same with a row for each method, and where the report lies."""
    score = results.get("target") if "targets" not in results else None
    rows = {results["method"]: score, **results.get("baselines", {})} if score else {}
    measure = headline_of(results)
    body = "".join(
        f"<tr><td>{escape(title_of(name))}</td><td>{measure.write(row[measure.key])}</td>"
        f"<td>{_interval(measure, row)}</td><td>{row['nll']:.3f}</td></tr>"
        for name, row in rows.items()
    )
    head = f"<tr><th>method</th><th>{measure.word}</th><th>95 % interval</th><th>NLL</th></tr>"
    table = f"<table>{head}{body}</table>" if rows else ""
    notes = "".join(f"<li>{escape(str(text))}</li>" for text in results.get("warnings", []))
    return f"<p><b>{escape(in_short(results))}</b><br><code>{escape(str(folder))}</code></p>{table}" + (
        f"<ul>{notes}</ul>" if notes else ""
    )


def _interval(measure: Measure, score: dict[str, Any]) -> str:
    return ", ".join(measure.plain(end) for end in score[f"{measure.key}_interval"])
