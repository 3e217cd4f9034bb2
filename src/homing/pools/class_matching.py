"""One class list for source and target: classes matched by name, and those that only the target has beside them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from homing.errors import DataError
from homing.pools.class_names import composed, near_misses, quoted, shown, spelled_alike
from homing.pools.label_sets import as_text, classes_of, holds_sets
from homing.pools.pool import Pool

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

_FIRST = 3  # pairs in a message
SINGLE = "has the single class {!r}; there is nothing to tell apart"


def classes_of_both(source: Pool, target: Pool) -> tuple[str, ...]:
    """Classes of source and target, sorted; those that only the target has are learned from the target alone.

    Raises:
        DataError: No class is in both, one that only the target has is a source's class in another spelling, or there
            is a single class.
    """
    own = only_in(target, source.classes)
    if twins := spelled_alike(own, source.classes):
        told = ", ".join(f"{shown(ours)} and the source's {shown(theirs)}" for ours, theirs in twins[:_FIRST])
        more = f" and {len(twins) - _FIRST:,} more" if len(twins) > _FIRST else ""
        renames = ", ".join(f"{ours!r}: {theirs!r}" for ours, theirs in twins[:_FIRST])
        raise DataError(
            f"classes {told}{more} differ only by case, spaces, hyphens or the form of their letters; give the target"
            f" rename: {{{renames}}}, or where they are different classes, a name that can be told from the other"
        )
    if len(own) == len(target.classes):
        hint = "".join(f"; {ours!r} is nearly {theirs!r}" for ours, theirs in near_misses(own, source.classes)[:_FIRST])
        raise DataError(
            f"none of the target's classes ({quoted(own)}) is among the source's classes ({quoted(source.classes)});"
            " classes are matched by name: give the target rename: {its name: the source's name}, or give the source"
            f" labels: other where it is of other classes{hint}"
        )
    classes = tuple(sorted({*source.classes, *own}))
    if len(classes) < 2:
        raise DataError(SINGLE.format(classes[0]))
    return classes


def renamed(pool: Pool, spec: PoolSpec) -> Pool:
    """The pool under the names that its recipe gives its classes; several may become one.

    Raises:
        DataError: An old name does not occur.
    """
    if not spec.rename:
        return pool
    names = {composed(old): composed(new) for old, new in spec.rename.items()}
    classes = classes_of(pool)
    if missing := [old for old in names if old not in classes]:
        slips = [*spelled_alike(missing, classes), *near_misses(missing, classes)]
        hint = "".join(f"; did you mean {other!r} for {old!r}?" for old, other in list(dict(slips).items())[:_FIRST])
        raise DataError(
            f"{spec.path}: rename: there is no class {quoted(missing)}; classes are {quoted(classes)}{hint}"
        )
    (read_as,) = pool.read_as

    def rename(label: str) -> str:
        return names.get(label, label)

    is_sets = holds_sets(pool)
    labels = pool.labels.map_names(lambda text: as_text(map(rename, json.loads(text))) if is_sets else rename(text))
    return replace(pool, labels=labels, read_as=(replace(read_as, renamed=names),))


def only_in(pool: Pool, others: tuple[str, ...]) -> tuple[str, ...]:
    """Classes of a pool that are none of some others, sorted."""
    return tuple(sorted(set(pool.classes) - set(others)))


def union_warnings(source: Pool, target: Pool) -> list[str]:
    """Which classes only the target has, and which of them may be a slip of the pen; nothing where there are none."""
    own = only_in(target, source.classes)
    if not own:
        return []
    counts = Counter(target.labels)
    listed = quoted(own, counts=counts)
    one = len(own) == 1
    found = [
        f"The target has {len(own):,} class{'' if one else 'es'} that the source lacks: {listed}."
        f" {'It is' if one else 'They are'} learned from the target's images alone."
    ]
    found += [
        f"{ours!r} is a class of the target alone; did you mean {theirs!r}, as in the source? Then give the target"
        f" rename: {{{ours!r}: {theirs!r}}}."
        for ours, theirs in near_misses(own, source.classes)[:_FIRST]
    ]
    return found
