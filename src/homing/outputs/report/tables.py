"""The report's smaller tables: φ, the judged settings, classes, confusion, cost, versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from homing.evaluation.metrics import wilson_interval
from homing.measures import JUDGES_SETS, MEASURES, headline_of
from homing.outputs.report.data import mapping, number
from homing.outputs.report.verdict import scores
from homing.outputs.titles import title_of

MAX_ROWS = 200
_MAX_CONFUSION_CLASSES = 40
_MAX_PAIRS = 50


@dataclass(frozen=True)
class JudgedRow:
    """One setting that was judged on held-out folds of the target.

    Attributes:
        cells: The setting, one value per column of the table.
        loss: Held-out loss.
        low: Loss minus its standard error, None where it is unknown.
        high: Loss plus its standard error.
        chosen: Whether the run used it.
    """

    cells: tuple[str, ...]
    loss: float
    low: float | None
    high: float | None
    chosen: bool


@dataclass(frozen=True)
class Judged:
    """The judged settings, best held-out loss first.

    Attributes:
        columns: Names of the settings.
        rows: At most `MAX_ROWS` settings; the chosen one is always among them.
        num_settings: How many were judged.
    """

    columns: tuple[str, ...]
    rows: tuple[JudgedRow, ...]
    num_settings: int


@dataclass(frozen=True)
class ClassScore:
    """Accuracy on one class of the test, or its average precision, and how much that is above another method's.

    None where it is not known; learned_from: images of a class that only the target has, else None.
    """

    name: str
    accuracy: float
    num_test: int | None
    low: float | None
    high: float | None
    learned_from: int | None = None
    gain: str | None = None
    gain_value: float | None = None
    gain_interval: str = ""
    is_small: bool = False


@dataclass(frozen=True)
class Confusion:
    """Which class was taken for which.

    Attributes:
        classes: Class names; empty where there are too many for a grid.
        shares: Share of each true class (row) given each predicted class (column).
        counts: The counts behind `shares`.
        pairs: The most frequent mistakes: true class, predicted class, count, share of the true class.
    """

    classes: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[str, str, int, float], ...]

    def shade(self, true: int, predicted: int) -> float:
        """How strongly a cell is coloured, in [0, 1]; mistakes three times as strongly as their share."""
        share = self.shares[true][predicted]
        return round(share if true == predicted else min(1.0, 3 * share), 3)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one level, keys joined by " · "."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix} · {key}" if prefix else key
        if isinstance(value, dict):
            flat |= flatten(mapping(value), name)
        else:
            flat[name] = value
    return flat


def show(value: Any) -> str:
    """Write a value of the recipe or of φ in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value)
    return str(value)


def phi_rows(results: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """The numbers of the rate model: name, value, and the 95 % interval of those that were judged.

    The interval is that of the judge's posterior over the settings that it was given: held-out losses as
    log-likelihoods, times its prior. It is made of values that were tried.
    """
    phi = flatten(mapping(mapping(results.get("rates")).get("phi")))
    given = results.get("judged")
    settings = [flatten(mapping(row)) for row in given] if isinstance(given, list) else []
    rows = []
    for name, value in phi.items():
        pairs = [(number(row.get(name)), number(row.get("posterior"))) for row in settings]
        known = sorted((at, mass) for at, mass in pairs if at is not None and mass is not None)
        ends = _central(known) if len({at for at, _ in known}) > 1 else None
        rows.append((name, show(value), None if ends is None else " – ".join(dict.fromkeys(map(show, ends)))))
    return rows


def _central(masses: list[tuple[float, float]]) -> tuple[float, float]:
    """The smallest values that 2.5 and 97.5 % of the mass do not exceed."""
    total, reached = sum(mass for _, mass in masses), 0.0
    ends: list[float] = []
    for at, mass in masses:
        reached += mass
        while len(ends) < 2 and reached >= (0.025, 0.975)[len(ends)] * total:
            ends.append(at)
    return ends[0], ends[-1]


def judged(results: dict[str, Any]) -> Judged | None:
    """Read the judged settings; None where the run has none."""
    given = results.get("judged")
    flat = [flatten(mapping(row)) for row in given] if isinstance(given, list) else []
    rated = [row for row in flat if number(row.get("nll")) is not None]
    if not rated:
        return None
    not_settings = {"nll", "standard_error", "posterior", "chosen"}
    columns = tuple(dict.fromkeys(key for row in rated for key in row if key not in not_settings))
    rows = sorted((_judged_row(row, columns) for row in rated), key=lambda row: row.loss)
    kept = [row for index, row in enumerate(rows) if index < MAX_ROWS or row.chosen]
    return Judged(columns, tuple(kept), len(rows))


def _judged_row(row: dict[str, Any], columns: tuple[str, ...]) -> JudgedRow:
    loss, error = float(row["nll"]), number(row.get("standard_error"))
    low, high = (None, None) if error is None else (loss - error, loss + error)
    return JudgedRow(tuple(show(row.get(name)) for name in columns), loss, low, high, row.get("chosen") is True)


def class_figure(results: dict[str, Any]) -> str:
    """What each class is measured by."""
    is_sets = headline_of(results).key == JUDGES_SETS
    return "Average precision" if is_sets else "Accuracy"


def class_scores(results: dict[str, Any]) -> list[ClassScore]:
    """Read the accuracy of every class, or its average precision, the worst first."""
    rows = []
    own = mapping(mapping(results.get("data")).get("only_in_target"))
    for name, values in mapping(results.get("per_class")).items():
        precision = number(mapping(values).get("average_precision"))
        accuracy = number(mapping(values).get("accuracy")) if precision is None else precision
        count = number(mapping(values).get("num_test"))
        if accuracy is not None:
            known = precision is None and count is not None and count >= 1 and 0 <= accuracy <= 1
            low, high = wilson_interval(accuracy, count) if known and count is not None else (None, None)
            images = number(own.get(name))
            learned_from = None if images is None else int(images)
            more = _class_gain(mapping(mapping(values).get("gain")))
            is_small = mapping(values).get("is_small") is True
            size = None if count is None else int(count)
            rows.append(ClassScore(name, accuracy, size, low, high, learned_from, *more, is_small=is_small))
    return sorted(rows, key=lambda row: row.accuracy)


def _class_gain(gain: dict[str, Any]) -> tuple[str | None, float | None, str]:
    """A gain and its interval, as text in points."""
    mean, low, high = (number(gain.get(key)) for key in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return None, None, ""
    write = MEASURES["accuracy"].difference
    return write(mean), mean, f"[{write(low)}, {write(high)}]"


def confusion(results: dict[str, Any]) -> Confusion | None:
    """Read the confusion matrix; None where it is missing or does not fit the classes."""
    names = mapping(results.get("data")).get("classes")
    grid = results.get("confusion")
    if not isinstance(names, list) or not isinstance(grid, list) or not names or len(grid) != len(names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in grid):
        return None
    classes = tuple(str(name) for name in names)
    counts = tuple(tuple(int(number(count) or 0) for count in row) for row in grid)
    shares = tuple(tuple(count / max(1, sum(row)) for count in row) for row in counts)
    pairs = sorted(
        (
            (classes[true], classes[predicted], count, shares[true][predicted])
            for true, row in enumerate(counts)
            for predicted, count in enumerate(row)
            if true != predicted and count > 0
        ),
        key=lambda pair: (-pair[2], pair[0], pair[1]),
    )
    fits = len(classes) <= _MAX_CONFUSION_CLASSES
    return Confusion(classes if fits else (), shares if fits else (), counts if fits else (), tuple(pairs[:_MAX_PAIRS]))


def cost(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Write the cost of the run for people."""
    given = mapping(results.get("cost"))
    rows = []
    for key, value in flatten({key: item for key, item in given.items() if not key.startswith("method_")}).items():
        title, write = _COSTS.get(key, (key.replace("_", " "), show))
        amount = number(value)
        rows.append((title, show(value) if amount is None else write(amount)))
    own, listed = str(results.get("method")), [row.name for row in scores(results)]
    order = {own if name == "homing" else name: place for place, name in enumerate(listed)}

    def in_order(costs: Any) -> list[tuple[str, Any]]:
        return sorted(mapping(costs).items(), key=lambda item: order.get(item[0], len(order)))

    for name, value in in_order(given.get("method_seconds")):
        seconds = number(value)
        rows += [] if seconds is None else [(f"Time of “{title_of(name)}”", duration(seconds))]
    for name, value in in_order(given.get("method_gradients")):
        rows.append((f"Gradients of single images in “{title_of(name)}”", f"{number(value) or 0:,.0f}"))
    return rows


def _memory(megabytes: float) -> str:
    return f"{megabytes / 1000:.2f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def duration(seconds: float) -> str:
    """Write a time span in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


_COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("Time in all", duration),
    "source_gradients": ("Source gradients computed", "{:,.0f}".format),
    "branches": ("Trainings whose weights are averaged", "{:.0f}".format),
    "peak_rss_mb": ("Peak memory", _memory),
}
