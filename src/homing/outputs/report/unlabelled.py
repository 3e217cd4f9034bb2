"""The report's view of unlabelled images: how many count, how sure their guesses are, which to label next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from homing.outputs.report.data import mapping, number
from homing.outputs.report.figures import Picture, share_figure

_MAX_WANTED = 100


@dataclass(frozen=True)
class Wanted:
    """An image to label next; numbers in 0..1, None where they are not known."""

    sample_id: str
    guess: str
    probability: float | None
    match: float | None
    score: float | None


@dataclass(frozen=True)
class Unlabelled:
    """What `results.json` says of unlabelled images.

    Attributes:
        num_samples: How many there are, without those that were left out.
        num_left_out: Images that were left out because the same pictures are in the run already.
        num_counting: How many are trained on at all.
        match_share: Share that looks like the target's domain.
        right_share: Share of their guesses that is right, as the target's labelled images tell.
        mass: How many source samples of rate 1 all of them count as much as.
        confidence: How sure the guesses are, drawn.
        wanted: What to label next.
    """

    num_samples: float | None
    num_left_out: float
    num_counting: float | None
    match_share: float | None
    right_share: float | None
    mass: float | None
    confidence: Picture | None
    wanted: tuple[Wanted, ...]


def unlabelled(results: dict[str, Any]) -> Unlabelled | None:
    """What there is to show; None where the run had no such images, or did not learn from them."""
    found = mapping(results.get("unlabelled"))
    if not found:
        return None
    names = ("num_samples", "num_counting", "match_share", "right_share", "mass")
    rows = found.get("wanted")
    return Unlabelled(
        **{name: number(found.get(name)) for name in names},
        num_left_out=sum(number(count) or 0 for count in mapping(found.get("left_out")).values()),
        confidence=_confidence(found.get("confidence")),
        wanted=tuple(_wanted(mapping(row)) for row in rows[:_MAX_WANTED]) if isinstance(rows, list) else (),
    )


def _confidence(counts: Any) -> Picture | None:
    if not isinstance(counts, list) or not counts:
        return None
    known = np.array([number(count) or 0.0 for count in counts])
    title, label = "How sure the guesses are", "probability that a guess is right, in %"
    return share_figure("confidence", title, known, label, "unlabelled images")


def _wanted(row: dict[str, Any]) -> Wanted:
    numbers = {name: number(row.get(name)) for name in ("probability", "match", "score")}
    return Wanted(str(row.get("sample_id", "")), str(row.get("guess", "")), **numbers)
