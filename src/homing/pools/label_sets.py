"""Several labels an image: what a cell says, as one text for each set of them, and which classes each set holds.

A set is a JSON list of its classes, sorted, as a text: `["cat", "dog"]`, `[]` for an image that has none of them. So a
row goes on having one label, and what counts, draws or compares rows by their labels need not know of sets.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.class_names import composed, quoted, shown, spelled_alike
from homing.pools.pool import Pool
from homing.pools.rows import ProblemRows
from homing.pools.texts import Texts

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

SEPARATOR = "|"
"""Between the labels of a cell that is no JSON list."""


@dataclass(frozen=True)
class LabelSets:
    """The different sets of a problem.

    Attributes:
        holds: bool [K, C], whether each of K sets holds each of C classes.
    """

    holds: npt.NDArray[np.bool_]


def as_text(labels: Iterable[str]) -> str:
    """A set of labels as the text that stands for it."""
    return json.dumps(sorted({composed(label.strip()) for label in labels}), ensure_ascii=False)


def labels_in(text: str) -> list[str]:
    """The labels that a cell names: a JSON list, or texts with `|` between them.

    Raises:
        ValueError: It begins like a list and is none, or one of the labels is empty.
    """
    if not text.lstrip().startswith("["):
        labels = text.split(SEPARATOR)
    else:
        labels = json.loads(text, parse_int=str, parse_float=str)
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError(f"{text[:60]!r} is no list of labels")
    return labels


def with_label_sets(pool: Pool) -> Pool:
    """The same pool with a set of labels in each row.

    Raises:
        DataError: A cell is no list of labels.
    """

    def name(text: str) -> str:
        try:
            return as_text(labels_in(text))
        except (ValueError, RecursionError):
            row = pool.labels.index(text)
            raise DataError(
                f"{pool.name}: the labels of {pool.ids[row]} are {text[:60]!r}; wanted are a JSON list of texts or"
                f" texts with {SEPARATOR} between them, and [] for none"
            ) from None

    codes, texts = pool.labels.encode()
    return replace(pool, labels=Texts.encoded(codes, [name(text) for text in texts]))


def as_told(pool: Pool, spec: PoolSpec, *, sets: bool | None) -> Pool:
    """The same pool with its labels as the task takes them.

    Args:
        pool: As it was read.
        spec: Says which columns hold labels.
        sets: Whether a row has a set of labels; None: labels are of no matter.

    Raises:
        DataError: They are sets where they should not be, or a cell is no list of labels.
    """
    if sets is None or spec.labels == "none":
        return pool
    if spec.label_columns and not sets:
        raise DataError(
            f"{spec.path}: label_columns gives an image several classes, and here each is of one; name its column with"
            " label_column"
        )
    if spec.label_columns and sets:
        return labels_from_columns(pool, spec.label_columns)
    if sets:
        return with_label_sets(pool)
    if any(map(_is_list, pool.classes)):
        raise DataError(
            f"{spec.path}: a label is a list ({next(filter(_is_list, pool.classes))[:60]}); for several labels an image"
            " set task: multi_label, else give one label a row"
        )
    return pool


def _is_list(text: str) -> bool:
    try:
        return text.startswith("[") and isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def labels_from_columns(pool: Pool, columns: Sequence[str]) -> Pool:
    """The same pool with the set of those columns of 0 and 1 that are 1 in a row.

    Raises:
        DataError: A column is missing or holds something else.
    """
    flags = np.stack([pool.flags(name) for name in columns], axis=1)
    rows, codes = np.unique(flags, axis=0, return_inverse=True)
    names = [as_text([name for name, is_set in zip(columns, row, strict=True) if is_set]) for row in rows]
    return replace(pool, labels=Texts.encoded(codes.reshape(-1).astype(np.int32), names))


def classes_of(pool: Pool) -> tuple[str, ...]:
    """Names of the classes of a pool, sorted: what its sets hold, or its labels where it has no sets."""
    if not holds_sets(pool):
        return pool.classes
    return tuple(sorted({name for text in pool.classes for name in json.loads(text)}))


def class_counts(pool: Pool) -> Counter[str]:
    """Images of each class of a pool; of sets, those that hold it."""
    codes, names = pool.labels.encode()
    found: Counter[str] = Counter()
    for text, count in zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True):
        for name in json.loads(text) if _is_list(text) else [text]:
            found[name] += count
    return found


def strata(pool: Pool) -> tuple[npt.NDArray[np.int32], list[str]]:
    """What a pool is divided by so that no class is lost: the class of each row, or the rarest one of its set.

    Returns:
        Position of each row's in the names, int32 [len(pool)], and the names; rows of no class have an empty one.
    """
    codes, texts = pool.labels.encode()
    if not holds_sets(pool):
        return codes, list(texts)
    places, names = by_rarest([json.loads(text) for text in texts], class_counts(pool))
    return places[codes], names


def by_rarest(sets: Sequence[Sequence[str]], counts: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """The rarest label of each set, of equals the first by name.

    Args:
        sets: Labels of each of K sets.
        counts: How many rows have each label.

    Returns:
        Its position in the names, int32 [K], and the names, sorted; a set of no label has an empty one.
    """
    rarest = [min(own, key=lambda name: (counts[name], name), default="") for own in sets]
    names = sorted(set(rarest))
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[name] for name in rarest], np.int32), names


def holds_sets(pool: Pool) -> bool:
    """Whether the labels of a pool are sets."""
    return all(map(_is_list, pool.classes))


def sets_in(pool: Pool, classes: Sequence[str], role: str = "model") -> npt.NDArray[np.bool_]:
    """Whether each row of a pool of sets is of each of the classes of a role; bool [len(pool), C].

    Raises:
        DataError: A class of this pool is not among them.
    """
    if wrong := _missing(pool, classes, role):
        raise DataError(wrong[0])
    codes, texts = pool.labels.encode()
    return _holds(texts, classes)[codes]


def match_sets(pools: Mapping[str, Pool]) -> tuple[tuple[str, ...], ProblemRows, LabelSets]:
    """Classes of the source, the set of each row over all pools, and the sets.

    Args:
        pools: Role → pool of sets, in row order; the source is among them.

    Raises:
        DataError: A role has a class that the source lacks, or the source has none.
    """
    classes = classes_of(pools["source"])
    if not classes:
        raise DataError("source: no image has a label; there is nothing to learn")
    if wrong := [f"{role}: {text}" for role, pool in pools.items() for text in _missing(pool, classes)]:
        raise DataError("\n".join(wrong))
    codes, texts = Texts.concat([pool.labels for pool in pools.values()]).encode()
    return classes, codes.astype(np.int64), LabelSets(_holds(texts, classes))


def _holds(texts: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    place = {name: number for number, name in enumerate(classes)}
    holds = np.zeros((len(texts), len(classes)), np.bool_)
    for row, text in zip(holds, texts, strict=True):
        row[[place[name] for name in json.loads(text)]] = True
    return holds


def _missing(pool: Pool, classes: Sequence[str], role: str = "source") -> list[str]:
    missing = sorted(set(classes_of(pool)) - set(classes))
    if not missing:
        return []
    near = spelled_alike(missing, classes)
    hint = "".join(f"; {shown(name)} is not quite {shown(other)}" for name, other in near[:3])
    return [
        f"class {quoted(missing)} is not among the {role}'s classes ({quoted(classes)}); classes are matched by name:"
        f" rename the label, add such images to the {role}, or leave the class out{hint}"
    ]
