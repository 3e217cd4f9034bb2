"""The report's headline: how well it went, against what, and whether it was worth it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from homing.outputs.report_data import mapping, number

_Z = 1.959964  # two-sided 95 %

_TITLES = {
    "target_only": "Target only",
    "source_only": "Source only",
    "pooled": "Both pooled",
    "pooled_oversampled": "Pooled, target oversampled",
    "oversampled": "Pooled, target oversampled",
    "oracle": "Oracle rates",
    "l2rw": "L2RW",
    "mw_net": "Meta-Weight-Net",
    "meta_weight_net": "Meta-Weight-Net",
}


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


def wilson(accuracy: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        accuracy: Share in [0, 1].
        count: Number of trials, at least 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    spread = _Z**2 / count
    centre = (accuracy + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(accuracy * (1 - accuracy) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def title_of(name: str) -> str:
    """Write a method's name for people."""
    plain = name.replace("_", " ")
    return _TITLES.get(name.lower().replace(" ", "_"), plain[:1].upper() + plain[1:])


def is_oracle(name: str) -> bool:
    """Whether a baseline's name says that it uses the truth."""
    return "oracle" in name.lower()


def scores(results: dict[str, Any]) -> list[Score]:
    """List the run and its baselines, best accuracy first; rows without an accuracy are left out."""
    run = mapping(results.get("target"))
    run_accuracy = number(run.get("accuracy"))
    rows = []
    if run_accuracy is not None:
        rows.append(_score("homing", run, run_accuracy, None))
    for name, values in mapping(results.get("baselines")).items():
        accuracy = number(mapping(values).get("accuracy"))
        if accuracy is not None:
            rows.append(_score(name, mapping(values), accuracy, run_accuracy))
    return sorted(rows, key=lambda row: (-row.accuracy, not row.is_run))


def _score(name: str, values: dict[str, Any], accuracy: float, run_accuracy: float | None) -> Score:
    is_run = run_accuracy is None and name == "homing"
    low, high = _interval(values, accuracy)
    title = "homing" if is_run else title_of(name)
    gap = None if run_accuracy is None else run_accuracy - accuracy
    return Score(name, title, accuracy, low, high, is_run, not is_run and is_oracle(name), gap, values)


def _interval(values: dict[str, Any], accuracy: float) -> tuple[float | None, float | None]:
    given = values.get("accuracy_interval")
    if isinstance(given, list | tuple) and len(given) == 2:
        low, high = number(given[0]), number(given[1])
        if low is not None and high is not None:
            return low, high
    count = number(values.get("num_test"))
    if count is None or count < 1 or not 0 <= accuracy <= 1:
        return None, None
    return wilson(accuracy, count)


def reference(rows: list[Score]) -> Score | None:
    """Pick what the run is measured against: pooled with the target oversampled, else pooled, else the best."""
    fair = [row for row in rows if not row.is_run and not row.is_oracle]
    for word in ("oversampl", "pooled"):
        named = [row for row in fair if word in row.name.lower()]
        if named:
            return named[0]
    return fair[0] if fair else None


def verdict(rows: list[Score]) -> Verdict:
    """Say whether the run was worth it, by intervals.

    The interval of the gain treats both figures as independent; on the same test images that is cautious.
    """
    run = next((row for row in rows if row.is_run), None)
    other = reference(rows)
    if run is None:
        return Verdict("none", "No accuracy", "This run recorded no accuracy on the target.")
    if other is None:
        return Verdict(
            "none",
            "Nothing to compare with",
            "No baseline was run, so this page cannot say whether the rates helped. `homing compare` can.",
        )
    best = next(row for row in rows if not row.is_run and not row.is_oracle)
    half = _half_width(run, best)
    if half is not None and run.accuracy + half < best.accuracy:
        return _judge(run.accuracy - best.accuracy, half, best.title, "")
    is_beaten = best is not other and best.accuracy > run.accuracy
    warning = f" But “{best.title}” scored {100 * best.accuracy:.1f} %." if is_beaten else ""
    gain = run.accuracy - other.accuracy
    half = _half_width(run, other)
    if half is None:
        direction = "ahead of" if gain > 0 else "not ahead of"
        text = f"{points(gain)} points: {direction} “{other.title}”, with no interval to judge it by.{warning}"
        return Verdict("open", "Cannot be judged", text)
    return _judge(gain, half, other.title, warning)


def _half_width(run: Score, other: Score) -> float | None:
    if run.low is None or run.high is None or other.low is None or other.high is None:
        return None
    return math.hypot(run.high - run.low, other.high - other.low) / 2


def _judge(gain: float, half: float, title: str, warning: str) -> Verdict:
    span = f"{points(gain)} points [{points(gain - half)}, {points(gain + half)}] against “{title}”"
    if gain - half > 0:
        if warning:
            return Verdict("open", "Better than pooling, but not the best", f"{span}.{warning}")
        return Verdict("good", "Worth it", f"{span}: more than chance would do on this many test images.")
    if gain + half < 0:
        return Verdict("bad", "Not worth it", f"{span}, which is better here; use that.")
    if gain > 0:
        text = f"{span}: ahead, but within what chance would do on this many test images.{warning}"
        return Verdict("open", "Not proven", text)
    return Verdict("open", "No gain shown", f"{span}: these rates did not help measurably here.{warning}")


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    value = round(100 * difference, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"
