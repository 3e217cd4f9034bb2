"""What of some pools may have been meant otherwise than it was read: to be told before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from homing.pools.class_names import alike, seems_missing, shown
from homing.pools.pool import Pool


def ambiguities(pools: Mapping[str, Pool]) -> list[str]:
    """One sentence for each reading that is open to doubt, and for classes whose names nearly are the same.

    Args:
        pools: Role → its pool.
    """
    found = [
        f"{role}: {f'pool {read_as.name}: ' if len(pool.read_as) > 1 else ''}{text}"
        for role, pool in pools.items()
        for read_as in pool.read_as
        for text in read_as.warnings
    ]
    for role, pool in pools.items():
        for name in filter(seems_missing, pool.classes):
            codes, names = pool.labels.encode()
            count = np.count_nonzero(codes == names.index(name))
            found.append(
                f"{role}: the class {name!r} ({count:,} images) may stand for labels that are missing; leave such rows"
                " out where it does"
            )
    holders: dict[str, list[str]] = {}
    for role, pool in pools.items():
        for name in pool.classes:
            holders.setdefault(name, []).append(role)
    for group in alike(holders):
        listed = " and ".join(f"{shown(name)} in {', '.join(holders[name])}" for name in group)
        found.append(
            f"classes {listed} differ only by case, outer space, invisible characters or how a number is written, and"
            " count as several"
        )
    return found
