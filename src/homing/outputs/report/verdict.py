"""The report's headline: how well it went, against what, and whether it was worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homing.evaluation.metrics import wilson_interval
from homing.outputs.report.data import mapping, number
from homing.outputs.report.keeping import how_to_use
from homing.outputs.titles import title_of


@dataclass(frozen=True)
class Score:
    """One row of the comparison.

    Attributes:
        name: Name as in `results.json`; "homing" for the run itself.
        title: Name for people.
        accuracy: Share of right answers in [0, 1].
        low: Lower end of its 95 % interval, None when it cannot be known.
        high: Upper end.
        is_run: Whether this row is the run itself.
        is_oracle: Whether the row knows what nobody knows in practice.
        gap: The run's accuracy minus this one's; None for the run itself.
        gap_low: Lower end of the gap's 95 % interval: paired where the run measured it, else as if independent.
        gap_high: Upper end.
        values: The other numbers of the row as in `results.json`.
    """

    name: str
    title: str
    accuracy: float
    low: float | None
    high: float | None
    is_run: bool
    is_oracle: bool
    gap: float | None
    gap_low: float | None
    gap_high: float | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Whether it was worth it.

    Attributes:
        tone: "good", "open", "bad" or "none": how the page colours it.
        title: Two or three words.
        text: One or two plain sentences.
    """

    tone: str
    title: str
    text: str


def is_oracle(name: str) -> bool:
    """Whether a baseline's name says that it uses the truth."""
    return "oracle" in name.lower()


def scores(results: dict[str, Any]) -> list[Score]:
    """List the run and its baselines, best accuracy first; rows without an accuracy are left out."""
    run = _score("homing", mapping(results.get("target")), None)
    rows = [] if run is None else [run]
    for name, values in mapping(results.get("baselines")).items():
        row = _score(name, mapping(values), run, is_baseline=True)
        rows += [] if row is None else [row]
    return sorted(rows, key=lambda row: (-row.accuracy, not row.is_run))


def _score(name: str, values: dict[str, Any], run: Score | None, *, is_baseline: bool = False) -> Score | None:
    accuracy = number(values.get("accuracy"))
    if accuracy is None:
        return None
    low, high = _interval(values, accuracy)
    gap = None if run is None else run.accuracy - accuracy
    gap_low, gap_high = (None, None) if run is None else _gap_interval(run, accuracy, low, high, values)
    title = title_of(name) if is_baseline else "homing"
    oracle = is_baseline and is_oracle(name)
    return Score(name, title, accuracy, low, high, not is_baseline, oracle, gap, gap_low, gap_high, values)


def _gap_interval(
    run: Score, accuracy: float, low: float | None, high: float | None, values: dict[str, Any]
) -> tuple[float | None, float | None]:
    """The paired interval of the run's gain where it was measured, else the cautious one of two separate figures."""
    paired = mapping(values.get("ours_minus_this"))
    paired_low, paired_high = number(paired.get("low")), number(paired.get("high"))
    if paired_low is not None and paired_high is not None:
        return paired_low, paired_high
    if run.low is None or run.high is None or low is None or high is None:
        return None, None
    gain, half = run.accuracy - accuracy, math.hypot(run.high - run.low, high - low) / 2
    return gain - half, gain + half


def _interval(values: dict[str, Any], accuracy: float) -> tuple[float | None, float | None]:
    given = values.get("accuracy_interval")
    if isinstance(given, list | tuple) and len(given) == 2:
        low, high = number(given[0]), number(given[1])
        if low is not None and high is not None:
            return low, high
    count = number(values.get("num_test"))
    if count is None or count < 1 or not 0 <= accuracy <= 1:
        return None, None
    return wilson_interval(accuracy, count)


def reference(rows: list[Score]) -> Score | None:
    """Pick what the run is measured against: pooled with the target oversampled, else pooled, else the best."""
    fair = [row for row in rows if not row.is_run and not row.is_oracle]
    for word in ("oversampl", "pooled"):
        named = [row for row in fair if word in row.name.lower()]
        if named:
            return named[0]
    return fair[0] if fair else None


def verdict(rows: list[Score], models: Mapping[str, Any] | None = None) -> Verdict:
    """Say whether the run was worth it, by the intervals of its gains.

    First against the best plain way, since one that is clearly better settles it; then against the reference.

    Args:
        rows: From `scores`.
        models: What `results.json` says of the models that were kept.
    """
    run, models = next((row for row in rows if row.is_run), None), models or {}
    other = reference(rows)
    if run is None:
        return Verdict("none", "No accuracy", "This run recorded no accuracy on the target.")
    if other is None:
        return Verdict(
            "none",
            "Nothing to compare with",
            "No baseline was run, so nothing says whether the rates helped. `homing compare` can.",
        )
    best = next(row for row in rows if not row.is_run and not row.is_oracle)
    if best.gap_high is not None and best.gap_high < 0:
        return Verdict("bad", "Not worth it", f"{_span(best)}, which is better here; {how_to_use(best.name, models)}.")
    is_beaten = best is not other and best.accuracy > run.accuracy
    return _judge(other, models, f" But “{best.title}” scored {100 * best.accuracy:.1f} %." if is_beaten else "")


def _judge(other: Score, models: Mapping[str, Any], warning: str) -> Verdict:
    gain, low, high = other.gap or 0.0, other.gap_low, other.gap_high
    if low is None or high is None:
        return Verdict("open", "Cannot be judged", f"{_span(other)}, with no interval to judge it by.{warning}")
    if low > 0 and warning:
        return Verdict("open", "Better than pooling, but not the best", f"{_span(other)}.{warning}")
    if low > 0:
        return Verdict("good", "Worth it", f"{_span(other)}: more than chance would do on this many images.")
    if high < 0:
        text = f"{_span(other)}, which is better here; {how_to_use(other.name, models)}."
        return Verdict("bad", "Not worth it", text)
    if gain > 0:
        text = f"{_span(other)}: ahead, but within what chance would do on this many images.{warning}"
        return Verdict("open", "Not proven", text)
    return Verdict("open", "No gain shown", f"{_span(other)}: these rates did not help measurably here.{warning}")


def _span(other: Score) -> str:
    known = other.gap_low is not None and other.gap_high is not None
    interval = f" [{points(other.gap_low or 0.0)}, {points(other.gap_high or 0.0)}]" if known else ""
    return f"{points(other.gap or 0.0)} points{interval} against “{other.title}”"


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    value = round(100 * difference, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"
