"""Whole numbers that a caller gives: of any integer type, checked, and as Python's own ever after."""

from __future__ import annotations

import operator
from typing import Any

from homing.errors import HomingError

MOST = 2**63 - 2
"""What int64 holds, with one to spare."""


def whole(name: str, value: Any, least: int = 0, most: int = MOST) -> int:
    """The number as an int: those of numpy and of torch would not go through JSON.

    Args:
        name: What the caller calls it.
        value: As given.
        least: The smallest that is allowed.
        most: The largest.

    Raises:
        HomingError: It is no whole number, or out of range.
    """
    try:
        found = int(operator.index(value))
    except TypeError:
        found = least - 1
    if not least <= found <= most:
        allowed = f"{least} and more" if most == MOST and found <= most else f"{least} to {most}"
        raise HomingError(f"{name} is {value!r}; allowed: whole numbers, {allowed}")
    return found
