"""What the reader must know of the pools before the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from homing.pools.class_names import quoted
from homing.pools.label_sets import class_counts
from homing.pools.looks import Looks
from homing.pools.near_duplicates import twins
from homing.pools.pool import Pool
from homing.pools.problem import Problem, shared_pictures
from homing.rates.learned.plan import RatePlan
from homing.terminal import counted

DOUBTED_SHARE = 0.15
"""Share of the target's labels that its folds may doubt unsaid: of right labels they doubted up to 14 %
(docs/decisions/judge-rule.md)."""
LISTED = 8
MIXED_UP, BEYOND_COMMON = 0.1, 2.0
"""A wrong label is told of where it stands on this share of a class, and so many times as often as wrong labels do."""
_HARM = {
    ("target", "test"): "the model was trained on them, so the figures above are too good",
    ("source", "test"): "the model may have been trained on them, so the figures above may be too good",
    ("source", "target"): "they count twice",
    ("unlabelled", "test"): "the model may have been trained on them, so the figures above may be too good",
    ("unlabelled", "target"): "they count twice",
}
"""Of pictures that two roles share."""
SMALL = 5
"""Images a class below which a target is called small."""


def target_warnings(problem: Problem) -> list[str]:
    """Where the target is too small, or lacks a class."""
    counts, found = class_counts(problem.target), []
    if absent := sorted(set(problem.classes) - set(counts)):
        found.append(f"The target has no image of {len(absent)} of {len(problem.classes)} classes: {quoted(absent)}.")
    if single := sorted(name for name, count in counts.items() if count == 1):
        found.append(f"The target has a single image of {quoted(single)}: its folds cannot judge such a class.")
    if len(problem.target) < SMALL * len(counts):
        found.append(
            f"The target is small: {counted(len(problem.target), 'image')} in {counted(len(counts), 'class')}. What is"
            " chosen on so few"
            f" changes from one choice of images to the next; {SMALL} a class are the least that was measured."
        )
    return found


def label_warnings(plan: RatePlan, target: Pool, classes: Sequence[str]) -> list[str]:
    """Where more of the target's labels are doubted by its own folds than hard samples alone would explain."""
    doubted = plan.doubted
    if len(doubted) <= DOUBTED_SHARE * len(target):
        return []
    listed = ", ".join(
        f"{target.ids[row]} ({target.labels[row]}, rather {classes[other]})" for row, other in doubted[:LISTED]
    )
    return [
        f"The target's folds disagree with {len(doubted)} of its {len(target)} labels: {listed}"
        f"{', ...' if len(doubted) > LISTED else ''}. Look at these: rates are judged by the target's labels,"
        " and wrong ones mislead them more than wrong ones in the source do."
    ]


def mixed_up_warnings(plan: RatePlan, classes: Sequence[str]) -> list[str]:
    """Where the source calls a class by the name of one other, more often than chance would."""
    if plan.scorer is None or len(plan.scorer.noise) != len(classes):
        return []
    wrong = plan.scorer.noise.clone().fill_diagonal_(0)
    common = float(wrong.sum()) / max(1, wrong.numel() - len(wrong))
    pairs = ((wrong > MIXED_UP) & (wrong > BEYOND_COMMON * common)).nonzero().tolist()
    if not pairs:
        return []
    pairs.sort(key=lambda pair: -float(wrong[pair[0], pair[1]]))
    listed = ", ".join(
        f"about {100 * float(wrong[true, given]):.0f} % of {classes[true]} under {classes[given]}"
        for true, given in pairs[:LISTED]
    )
    return [
        f"The source's labels are mixed up: {listed}{', ...' if len(pairs) > LISTED else ''}. Such labels count less;"
        " `suggested_label` in rates.parquet has the class that fits better."
    ]


def overlap_warnings(problem: Problem) -> list[str]:
    """Where two roles hold the same pictures, and what that does to the figures."""
    found = []
    labelled = {role: pool for role, pool in problem.by_role.items() if role != "unlabelled"}  # what it shares is gone
    for first, second, shared in shared_pictures(labelled):
        ours, theirs = shared[0]
        found.append(
            f"{len(shared):,} pictures are both in the {first} and in the {second} (first: {ours} and {theirs}):"
            f" {_HARM[first, second]}."
        )
    return found


def twin_warnings(problem: Problem, looks: Looks, max_pixels: int) -> list[str]:
    """Where two roles, or the source twice, hold pictures of other bytes that are the same to the eye.

    Args:
        problem: Pools and roles.
        looks: Of its rows, 0 where they are not known; or none at all.
        max_pixels: A larger picture is not looked at.
    """
    if not looks.any():
        return []
    ends = np.cumsum([len(pool) for pool in problem.pools])[:-1]
    by_role = dict(zip(problem.by_role, np.split(looks, ends), strict=True))
    found = []
    for one in twins(problem.by_role, by_role, max_pixels):
        (ours, theirs), many = one.pairs[0], one.count > 1
        if one.first == one.second:
            found.append(
                f"{one.count:,} picture{'s' * many} of the source {'are' if many else 'is'} in it already (first:"
                f" {ours} and {theirs}): {'each counts' if many else 'it counts'} as often as it is there."
            )
            continue
        found.append(
            f"{one.count:,} picture{'s' * many} of the {one.first} {'are' if many else 'is'} nearly the same as one of"
            f" the {one.second} (first: {ours} and {theirs}): {_HARM[one.first, one.second]}."
        )
    return found


def repeated_warning(repeated: Mapping[str, int]) -> str:
    """That unlabelled images were left out; repeated: role that has them already → how many."""
    parts = [
        f"{count:,} occur twice in it" if role == "unlabelled" else f"{count:,} are in the {role} too"
        for role, count in repeated.items()
    ]
    return (
        f"Unlabelled images were left out because the same pictures are there already: {', '.join(parts)}. Pictures of"
        " the test never serve, and labels of the others are known."
    )
