"""Source, target, test and unlabelled images: one numbering of rows, one class list, one store of images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from homing.errors import DataError
from homing.pools.class_matching import SINGLE, classes_of_both, only_in
from homing.pools.label_sets import LabelSets, match_sets
from homing.pools.names import RowNames
from homing.pools.near_duplicates import PAIRS
from homing.pools.pool import JoinedImages, Pool, join
from homing.pools.reading import read_pool
from homing.pools.rows import ProblemRows, StoreRows
from homing.pools.split_off import split_off

if TYPE_CHECKING:
    from homing.recipe.data import Data, PoolSpec

ROLES = ("source", "target", "test", "unlabelled")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Problem:
    """What is to be learned from what.

    Rows count over source, then target, then test, then unlabelled. Attributes:
        source: The large pool (several pools joined).
        target: Labelled images of the domain that the model is for.
        test: Held-out images of that domain; None where there are none.
        classes: Class names, sorted; the model's outputs are in this order.
        labels: int64 [rows], position in `classes`, or behind them in `own_classes`; -1 for unlabelled images, and for
            a target whose labels are missing or play no part; `classes` are the source's then.
        own_classes: Of the source, where they are others than the target's; empty where it shares those.
        unlabelled: Further images of the target's domain, or what is taken for such; None where there are none.
        label_sets: Where a row has a set of classes, the different sets, which `labels` are positions of; else None.
    """

    source: Pool
    target: Pool
    test: Pool | None
    classes: tuple[str, ...]
    labels: ProblemRows
    own_classes: tuple[str, ...] = ()
    unlabelled: Pool | None = None
    label_sets: LabelSets | None = None

    @property
    def source_classes(self) -> tuple[str, ...]:
        """What the source's labels are of: its own classes, or those of all."""
        return self.own_classes or self.classes

    @property
    def only_in_target(self) -> tuple[str, ...]:
        """Classes that the target alone has, beside a source that shares the others; sorted."""
        is_shared = self.has_target_labels and not self.own_classes and self.label_sets is None
        return only_in(self.target, self.source.classes) if is_shared else ()

    @property
    def num_outputs(self) -> int:
        """Of a model that is trained on all of them."""
        return len(self.classes) + len(self.own_classes)

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
        return tuple(self.by_role.values())

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

    @property
    def unlabelled_rows(self) -> ProblemRows:
        """Rows of the unlabelled images, the last ones; empty where there are none."""
        return np.arange(len(self) - (0 if self.unlabelled is None else len(self.unlabelled)), len(self))

    def __len__(self) -> int:
        return sum(map(len, self.pools))

    @property
    def by_role(self) -> dict[str, Pool]:
        """The pools by what they are for, in row order."""
        pools = zip(ROLES, (self.source, self.target, self.test, self.unlabelled), strict=True)
        return {role: pool for role, pool in pools if pool is not None}

    def joined(self) -> tuple[JoinedImages, StoreRows, RowNames]:
        """One store for all pools, the store's row of each row, and each row's id with its role in front."""
        return side_by_side(self.by_role)

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
        parts, start = {}, 0
        for role, pool in self.by_role.items():
            inside = keep[(keep >= start) & (keep < start + len(pool))] - start
            if not len(inside):
                raise DataError(f"{pool.name}: none of its {len(pool)} images can be read")
            parts[role] = pool.select(inside)
            start += len(pool)
        return replace(
            self,
            source=parts["source"],
            target=parts["target"],
            test=parts.get("test"),
            unlabelled=parts.get("unlabelled"),
            labels=self.labels[keep],
        )


def side_by_side(pools: Mapping[str, Pool]) -> tuple[JoinedImages, StoreRows, RowNames]:
    """One store for the pools of some roles, the store's row of each row, and each row's id with its role in front."""
    stores = JoinedImages([pool.store for pool in pools.values()])
    rows = [pool.rows + start for pool, start in zip(pools.values(), stores.starts, strict=False)]
    names = RowNames([(role, pool.ids) for role, pool in pools.items()])
    return stores, np.concatenate([np.zeros(0, np.int64), *rows]), names


def open_problem(data: Data, *, trains: bool = True, sets: bool = False) -> Problem:
    """Read all pools of a recipe and match their classes by name; no image is decoded.

    Args:
        data: Of the recipe.
        trains: Whether a model is trained; rates alone look at no label that source and target do not share.
        sets: Whether an image has a set of labels.

    Raises:
        DataError: A pool cannot be read, or its classes cannot be matched.
    """
    pools, wrong = read_roles(data, sets=sets)
    if wrong:
        raise DataError("\n".join(wrong))
    return match_classes(pools, data, trains=trains, sets=sets)


def read_roles(data: Data, *, sets: bool = False) -> tuple[dict[str, Pool], list[str]]:
    """The pool of each role that a recipe names and that can be read, and what is wrong with the others."""
    steps: dict[str, Callable[[], Pool]] = {
        "source": lambda: join(_read_all(data.sources, sets=sets)),
        "target": lambda: read_pool(data.target_pool, sets=sets),
    }
    if (test := data.test_pool) is not None:
        steps["test"] = lambda: read_pool(test, sets=sets)
    if (unlabelled := data.unlabelled_pool) is not None:
        steps["unlabelled"] = lambda: read_pool(unlabelled)
    pools, wrong = _each(steps)
    if (part := data.test_split) is not None and "target" in pools:
        whole = pools["target"]
        found, more = _each({"test": lambda: split_off(whole, part.stretch, data.max_pixels)})
        wrong += more
        parts = pools | dict(zip(("target", "test"), found.get("test", (whole,)), strict=False))
        pools = {role: parts[role] for role in ROLES if role in parts}
    return pools, wrong


def _read_all(specs: Sequence[PoolSpec], *, sets: bool) -> list[Pool]:
    """Several pools; one error with the mistakes of all."""
    pools, wrong = _each({str(place): partial(read_pool, spec, sets=sets) for place, spec in enumerate(specs)})
    if wrong:
        raise DataError("\n".join(text.partition(": ")[2] for text in wrong))
    return list(pools.values())


def match_classes(pools: Mapping[str, Pool], data: Data, *, trains: bool = True, sets: bool = False) -> Problem:
    """The problem that some pools are, with their classes matched by name.

    Args:
        pools: Of `read_roles`: all that the recipe names.
        data: Of the recipe.
        trains: As for `open_problem`.
        sets: As for `open_problem`.

    Raises:
        DataError: Source and target have no class in common, or one in two spellings; the test has a class that neither
            has; or there is a single class.
    """
    source, target, test, unlabelled = pools["source"], pools["target"], pools.get("test"), pools.get("unlabelled")
    if sets:
        classes, labels, label_sets = match_sets(pools)
        return Problem(source, target, test, classes, labels, label_sets=label_sets)
    unknown = np.full(len(target), -1)
    if not (data.shares_labels or trains):
        known = [source.label_indices(source.classes), unknown]
        return Problem(source, target, None, source.classes, np.concatenate(known))
    is_labelled = data.target_pool.labels == "shared"
    is_apart = is_labelled and data.sources[0].labels == "other"
    classes, own = (target.classes, source.classes) if is_apart else (source.classes, ())
    whose, wrong = "the target" if own else "the source", list[str]()
    if data.shares_labels:
        matched, wrong = _each({"target": lambda: classes_of_both(source, target)})
        classes = matched.get("target", tuple(sorted({*source.classes, *target.classes})))
        whose = whose if classes == source.classes else "the source's or the target"
    for role, names in () if data.shares_labels else (("source", source.classes), ("target", classes)):
        if len(names) < 2:
            raise DataError(f"{role}: {SINGLE.format(names[0])}")
    found, more = _each(
        {
            "source": lambda: source.label_indices(own or classes) + (len(classes) if own else 0),
            "target": lambda: target.label_indices(classes) if is_labelled else unknown,
            "test": lambda: np.empty(0, np.int64) if test is None else test.label_indices(classes, whose),
            "unlabelled": lambda: np.full(0 if unlabelled is None else len(unlabelled), -1),
        }
    )
    if wrong := [*wrong, *more]:
        raise DataError("\n".join(wrong))
    return Problem(source, target, test, classes, np.concatenate(list(found.values())), own, unlabelled)


def _each(steps: Mapping[str, Callable[[], _Result]]) -> tuple[dict[str, _Result], list[str]]:
    """The result of each role's step, and what is wrong where one failed, each line with its role."""
    results: dict[str, _Result] = {}
    wrong: list[str] = []
    for role, step in steps.items():
        try:
            results[role] = step()
        except DataError as error:
            wrong += [f"{role}: {line}" for line in str(error).splitlines()]
    return results, wrong


def overlaps(problem: Problem | Mapping[str, Pool], at_most: int = 20) -> list[str]:
    """The same picture in two roles, by the bytes of the file; one sentence a pair, at most 20 a pair of roles."""
    found = []
    for first, second, shared in shared_pictures(problem):
        found += [
            f"the same picture is in {first} ({ours}) and {second} ({theirs})" for ours, theirs in shared[:at_most]
        ]
        if len(shared) > at_most:
            found.append(f"... and {len(shared) - at_most:,} further pictures of {first} in {second}")
    return found


def shared_pictures(problem: Problem | Mapping[str, Pool]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Pictures that two roles share: (role, role, their ids in each); pairs of roles that share none are left out.

    What was read for its id is not read again; another image of the source or of the unlabelled only where one of the
    target or test is as long.

    Args:
        problem: Or the pools of some roles.
    """
    roles = problem.by_role if isinstance(problem, Problem) else problem
    lengths: set[int] = set()
    by_digest = {role: _by_digest(pool, lengths) for role, pool in roles.items() if role in ("target", "test")}
    wanted = {key for found in by_digest.values() for key in found}
    by_digest |= {role: _among(pool, lengths, wanted) for role, pool in roles.items() if role not in by_digest}
    found = []
    for first, second in PAIRS:
        ours, theirs = by_digest.get(first, {}), by_digest.get(second, {})
        shared = sorted((ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
        if shared:
            found.append((first, second, shared))
    return found


def _by_digest(pool: Pool, lengths: set[int]) -> dict[bytes, str]:
    """sha256 → id of each picture; their lengths are added to `lengths`."""
    found = {}
    for row, sample_id in enumerate(pool.ids):
        with contextlib.suppress(OSError):
            data = pool.read(row)
            lengths.add(len(data))
            found[hashlib.sha256(data).digest()] = sample_id
    return found


def _among(pool: Pool, lengths: set[int], wanted: set[bytes]) -> dict[bytes, str]:
    """The same for a large pool, but of wanted pictures only, which have one of some lengths."""
    found = {}
    for row, sample_id in enumerate(pool.ids):
        with contextlib.suppress(OSError):
            digest = pool.known_digest(row)
            if digest is None and pool.size(row) in lengths:
                digest = hashlib.sha256(pool.read(row)).digest()
            if digest in wanted:
                found[digest] = sample_id
    return found
