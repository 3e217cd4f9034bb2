"""Source, target and test side by side: one numbering of rows, one class list, one store of images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from homing.errors import DataError
from homing.pools.names import RowNames
from homing.pools.pool import JoinedImages, Pool, join
from homing.pools.reading import read_pool
from homing.pools.rows import ProblemRows, StoreRows

if TYPE_CHECKING:
    from homing.recipe.schema import Data

ROLES = ("source", "target", "test")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Problem:
    """What is to be learned from what.

    Rows count over source, then target, then test. Attributes:
        source: The large pool (several pools joined).
        target: Labelled images of the domain that the model is for.
        test: Held-out images of that domain; None where there are none.
        classes: Class names, sorted; the model's outputs are in this order.
        labels: int64 [source + target + test], position in `classes`, or behind them in `own_classes`; -1 for a target
            whose labels are missing or play no part; `classes` are the source's then.
        own_classes: Of the source, where they are others than the target's; empty where it shares those.
    """

    source: Pool
    target: Pool
    test: Pool | None
    classes: tuple[str, ...]
    labels: ProblemRows
    own_classes: tuple[str, ...] = ()

    @property
    def source_classes(self) -> tuple[str, ...]:
        """What the source's labels are of: its own classes, or those of all."""
        return self.own_classes or self.classes

    @property
    def source_labels(self) -> ProblemRows:
        """Position of each source row's label in `source_classes`; int64 [source]."""
        return self.labels[: len(self.source)] - (len(self.classes) if self.own_classes else 0)

    @property
    def has_target_labels(self) -> bool:
        """Whether labels of the target are known and play a part."""
        return bool((self.labels[self.target_rows] >= 0).all())

    @property
    def is_measured(self) -> bool:
        """Whether there are labelled images of the target's domain that a model can be measured on."""
        return self.test is not None or self.has_target_labels

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools in row order."""
        return (self.source, self.target) if self.test is None else (self.source, self.target, self.test)

    @property
    def source_rows(self) -> ProblemRows:
        """Rows of the source: 0 .. len(source)."""
        return np.arange(len(self.source))

    @property
    def target_rows(self) -> ProblemRows:
        """Rows of the target, behind those of the source."""
        return len(self.source) + np.arange(len(self.target))

    @property
    def test_rows(self) -> ProblemRows:
        """Rows of the test, behind those of the target; empty without a test."""
        start = len(self.source) + len(self.target)
        return start + np.arange(0 if self.test is None else len(self.test))

    def __len__(self) -> int:
        return sum(map(len, self.pools))

    def joined(self) -> tuple[JoinedImages, StoreRows, RowNames]:
        """One store for all pools, the store's row of each row, and each row's id with its role in front."""
        stores = JoinedImages([pool.store for pool in self.pools])
        rows = [pool.rows + start for pool, start in zip(self.pools, stores.starts, strict=False)]
        names = RowNames(list(zip(ROLES, (pool.ids for pool in self.pools), strict=False)))
        return stores, np.concatenate(rows), names

    def id_of(self, row: int) -> str:
        """Id of a row, in its pool."""
        for pool in self.pools:
            if row < len(pool):
                return str(pool.ids[row])
            row -= len(pool)
        raise IndexError(row)

    def without(self, rows: Iterable[int]) -> Problem:
        """The problem with some rows left out (images that cannot be read)."""
        keep = np.setdiff1d(np.arange(len(self)), np.fromiter(rows, dtype=np.int64))
        parts, start = [], 0
        for pool in self.pools:
            inside = keep[(keep >= start) & (keep < start + len(pool))] - start
            if not len(inside):
                raise DataError(f"{pool.name}: none of its {len(pool)} images can be read")
            parts.append(pool.select(inside))
            start += len(pool)
        test = parts[2] if self.test is not None else None
        return replace(self, source=parts[0], target=parts[1], test=test, labels=self.labels[keep])


def open_problem(data: Data, *, trains: bool = True) -> Problem:
    """Read all pools of a recipe and match their classes by name; no image is decoded.

    Args:
        data: Of the recipe.
        trains: Whether a model is trained; rates alone look at no label that source and target do not share.

    Raises:
        DataError: A pool cannot be read, or the target or test has a class that the source lacks.
    """
    source, target, test = _each(
        {
            "source": lambda: join([read_pool(spec) for spec in data.sources]),
            "target": lambda: read_pool(data.target_pool),
            "test": lambda: None if data.test_pool is None else read_pool(data.test_pool),
        }
    )
    assert source is not None
    assert target is not None
    unknown = np.full(len(target), -1)
    if not (data.shares_labels or trains):
        labels = [source.label_indices(source.classes), unknown]
        return Problem(source, target, None, source.classes, np.concatenate(labels))
    is_labelled = data.target_pool.labels == "shared"
    is_apart = is_labelled and data.sources[0].labels == "other"
    classes, own = (target.classes, source.classes) if is_apart else (source.classes, ())
    for role, names in (("source", source.classes), ("target", classes)):
        if len(names) < 2:
            raise DataError(f"{role}: has the single class {names[0]!r}; there is nothing to tell apart")
    labels = _each(
        {
            "source": lambda: source.label_indices(source.classes) + (len(classes) if own else 0),
            "target": lambda: target.label_indices(classes) if is_labelled else unknown,
            "test": lambda: (
                np.empty(0, np.int64) if test is None else test.label_indices(classes, "target" if own else "source")
            ),
        }
    )
    return Problem(source, target, test, classes, np.concatenate(labels), own)


def _each(steps: dict[str, Callable[[], _Result]]) -> list[_Result]:
    """The result of each role's step; where steps fail, one error with the mistakes of all roles."""
    results, wrong = [], []
    for role, step in steps.items():
        try:
            results.append(step())
        except DataError as error:
            wrong.append(f"{role}: {error}")
    if wrong:
        raise DataError("\n".join(wrong))
    return results


def overlaps(problem: Problem, at_most: int = 20) -> list[str]:
    """The same picture in two roles, by the bytes of the file; one sentence a pair, at most 20 a pair of roles."""
    found = []
    for first, second, shared in shared_pictures(problem):
        found += [
            f"the same picture is in {first} ({ours}) and {second} ({theirs})" for ours, theirs in shared[:at_most]
        ]
        if len(shared) > at_most:
            found.append(f"... and {len(shared) - at_most:,} further pictures of {first} in {second}")
    return found


def shared_pictures(problem: Problem) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Pictures that two roles share: (role, role, their ids in each); pairs of roles that share none are left out.

    A file of the source is read only where one of the target or test is as long.
    """
    roles = dict(zip(ROLES, problem.pools, strict=False))
    by_digest = {role: _by_digest(pool, None) for role, pool in roles.items() if role != "source"}
    lengths = {length for found in by_digest.values() for length, _ in found}
    by_digest["source"] = _by_digest(problem.source, lengths)
    found = []
    for first, second in (("target", "test"), ("source", "test"), ("source", "target")):
        ours, theirs = by_digest[first], by_digest.get(second, {})
        shared = sorted((ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
        if shared:
            found.append((first, second, shared))
    return found


def _by_digest(pool: Pool, lengths: set[int] | None) -> dict[tuple[int, bytes], str]:
    """(length, sha256) → id of each picture, of those of some lengths only."""
    found = {}
    for row, sample_id in enumerate(pool.ids):
        with contextlib.suppress(OSError):
            if lengths is None or pool.size(row) in lengths:
                data = pool.read(row)
                found[len(data), hashlib.sha256(data).digest()] = sample_id
    return found
