"""The report's headline: how well it went, against what, and whether it was worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homing.evaluation.metrics import wilson_interval
from homing.measures import MEASURES, Measure, headline_of
from homing.outputs.report.data import mapping, number
from homing.outputs.report.keeping import how_to_use
from homing.outputs.titles import title_of

FURTHER: dict[str, tuple[str, Callable[[float], str]]] = {"ece": ("Calibration error", "{:.3f}".format)}
"""Figures that models are not compared by."""


@dataclass(frozen=True)
class Score:
    """One row of the comparison.

    Attributes:
        name: Name as in `results.json`; "homing" for the run itself.
        title: Name for people.
        measure: What the run is judged by.
        value: Its value.
        low: Lower end of its 95 % interval, None when it cannot be known.
        high: Upper end.
        is_run: Whether this row is the run itself.
        is_oracle: Whether the row knows what nobody knows in practice.
        gap: The run's value minus this one's; None for the run itself.
        gap_low: Lower end of the gap's 95 % interval: paired where the run measured it, else as if independent.
        gap_high: Upper end.
        values: The other numbers of the row as in `results.json`.
    """

    name: str
    title: str
    measure: Measure
    value: float
    low: float | None
    high: float | None
    is_run: bool
    is_oracle: bool
    gap: float | None
    gap_low: float | None
    gap_high: float | None
    values: dict[str, Any]

    @property
    def text(self) -> str:
        """The value with its unit."""
        return self.measure.write(self.value)

    @property
    def interval(self) -> str:
        """Its interval in brackets; empty where it cannot be known."""
        known = self.low is not None and self.high is not None
        return f"[{self.measure.plain(self.low or 0.0)}, {self.measure.plain(self.high or 0.0)}]" if known else ""

    @property
    def gap_text(self) -> str:
        """The gap with its sign; empty for the run itself."""
        return "" if self.gap is None else self.measure.difference(self.gap)

    @property
    def gap_interval(self) -> str:
        """The interval of the gap in brackets; empty where it cannot be known."""
        if self.gap_low is None or self.gap_high is None:
            return ""
        return f"[{self.measure.difference(self.gap_low)}, {self.measure.difference(self.gap_high)}]"

    @property
    def lead(self) -> tuple[float, float | None, float | None]:
        """How much better the run is than this, and the interval of it; positive where it is better."""
        gain, ends = self.measure.gain(self.gap or 0.0), (self.gap_low, self.gap_high)
        low, high = ends[::-1] if self.measure.falls else ends
        if low is None or high is None:
            return gain, None, None
        return gain, self.measure.gain(low), self.measure.gain(high)


@dataclass(frozen=True)
class Verdict:
    """Whether it was worth it.

    Attributes:
        tone: "good", "open", "bad" or "none": how the page colours it.
        title: Two or three words.
        text: One or two plain sentences.
        icon: "check", "cross", "equal" or "question": what stands beside it.
    """

    tone: str
    title: str
    text: str
    icon: str = "question"


def is_oracle(name: str) -> bool:
    """Whether a baseline's name says that it uses the truth."""
    return "oracle" in name.lower()


def scores(results: dict[str, Any]) -> list[Score]:
    """List the run and its baselines, the best first by the run's metric; rows without a value are left out."""
    measure, run_values = headline_of(results), mapping(results.get("target"))
    if number(run_values.get(measure.key)) is None:
        measure = MEASURES["accuracy"]
    run = _score("homing", run_values, None, measure)
    rows = [] if run is None else [run]
    for name, values in mapping(results.get("baselines")).items():
        row = _score(name, mapping(values), run, measure, is_baseline=True)
        rows += [] if row is None else [row]
    return sorted(rows, key=lambda row: (-measure.gain(row.value), not row.is_run))


def _score(
    name: str, values: dict[str, Any], run: Score | None, measure: Measure, *, is_baseline: bool = False
) -> Score | None:
    value = number(values.get(measure.key))
    if value is None:
        return None
    low, high = _interval(values, value, measure)
    gap = None if run is None else run.value - value
    gap_low, gap_high = (None, None) if run is None else _gap_interval(run, value, low, high, values)
    title = title_of(name) if is_baseline else "homing"
    oracle = is_baseline and is_oracle(name)
    return Score(name, title, measure, value, low, high, not is_baseline, oracle, gap, gap_low, gap_high, values)


def _gap_interval(
    run: Score, value: float, low: float | None, high: float | None, values: dict[str, Any]
) -> tuple[float | None, float | None]:
    """The paired interval of the run's gain where it was measured, else the cautious one of two separate figures."""
    paired = mapping(mapping(values.get("gains")).get(run.measure.key))
    if not paired and run.measure.key == "accuracy":  # runs of before other figures were compared
        paired = mapping(values.get("ours_minus_this"))
    paired_low, paired_high = number(paired.get("low")), number(paired.get("high"))
    if paired_low is not None and paired_high is not None:
        return paired_low, paired_high
    if run.low is None or run.high is None or low is None or high is None:
        return None, None
    gap, half = run.value - value, math.hypot(run.high - run.low, high - low) / 2
    return gap - half, gap + half


def _interval(values: dict[str, Any], value: float, measure: Measure) -> tuple[float | None, float | None]:
    given = values.get(f"{measure.key}_interval")
    if isinstance(given, list | tuple) and len(given) == 2:
        low, high = number(given[0]), number(given[1])
        if low is not None and high is not None:
            return low, high
    count = number(values.get("num_test"))
    if measure.key != "accuracy" or count is None or count < 1 or not 0 <= value <= 1:
        return None, None
    return wilson_interval(value, count)


def columns_of(present: Iterable[str], measure: Measure) -> list[tuple[str, str, Callable[[float], str]]]:
    """The further columns of the comparison, key, title and how a value is written: what is there of each figure."""
    known = {one.key: (one.title, one.write) for one in MEASURES.values()} | FURTHER
    keys, there = [*known], set(present) - {measure.key}
    return [(key, *known[key]) for key in keys if key in there]


def reference(rows: Sequence[Score]) -> Score | None:
    """Pick what the run is measured against: pooled with the target oversampled, else pooled, else the best."""
    fair = [row for row in rows if not row.is_run and not row.is_oracle]
    for word in ("oversampl", "pooled"):
        named = [row for row in fair if word in row.name.lower()]
        if named:
            return named[0]
    return fair[0] if fair else None


def verdict(rows: Sequence[Score], models: Mapping[str, Any] | None = None) -> Verdict:
    """Say whether the run was worth it, by the intervals of its gains.

    First against the best plain way, since one that is clearly better settles it; then against the reference.

    Args:
        rows: From `scores`.
        models: What `results.json` says of the models that were kept.
    """
    run, models = next((row for row in rows if row.is_run), None), models or {}
    other = reference(rows)
    if run is None:
        return Verdict("none", "No figure", "This run recorded no accuracy on the target.")
    if other is None:
        return Verdict(
            "none",
            "Nothing to compare with",
            "No baseline was run, so nothing says whether the rates helped. `homing compare` can.",
        )
    best = next(row for row in rows if not row.is_run and not row.is_oracle)
    _, _, most = best.lead
    if most is not None and most < 0:
        text = f"{_span(best)}, which is better here; {how_to_use(best.name, models)}."
        return Verdict("bad", "Not worth it", text, "cross")
    is_beaten = best is not other and best.lead[0] < 0
    return _judge(other, models, f" But “{best.title}” scored {best.text}." if is_beaten else "")


def _judge(other: Score, models: Mapping[str, Any], warning: str) -> Verdict:
    gain, low, high = other.lead
    if low is None or high is None:
        return Verdict("open", "Cannot be judged", f"{_span(other)}, with no interval to judge it by.{warning}")
    if low > 0 and warning:
        return Verdict("open", "Better than pooling, but not the best", f"{_span(other)}.{warning}")
    if low > 0:
        return Verdict("good", "Worth it", f"{_span(other)}: more than chance would do on this many images.", "check")
    if high < 0:
        text = f"{_span(other)}, which is better here; {how_to_use(other.name, models)}."
        return Verdict("bad", "Not worth it", text, "cross")
    if gain > 0:
        text = f"{_span(other)}: ahead, but within what chance would do on this many images.{warning}"
        return Verdict("open", "Not proven", text)
    text = f"{_span(other)}: these rates did not help measurably here.{warning}"
    return Verdict("open", "No gain shown", text, "equal")


def _span(other: Score) -> str:
    """The run's gain over another way, in words."""
    measure = other.measure
    unit = measure.word
    if measure.is_percent:
        unit = "points" if measure.key == "accuracy" else f"points of {measure.word}"
    parts = [other.gap_text, unit, other.gap_interval, f"against “{other.title}”", "(less is better)" * measure.falls]
    return " ".join(filter(None, parts))
