"""Hints on names of classes: found where they help, at little cost however many and long the names are."""

import time

import pytest

from homing.pools.class_names import near_misses

KNOWN = [f"kind-{number} of {number * 7919 % 4001}" for number in range(2_000)]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cats", "cat"),
        ("bull mastif", "bull mastiff"),
        ("tabby", "tavby"),
        ("boxes", "box"),
        ("a" * 70 + "s", "a" * 70),
    ],
)
def test_a_slip_is_found_among_many_classes(name, other):
    assert near_misses([name], [*KNOWN, other]) == [(name, other)]


def test_many_long_names_cost_little():
    names = [f"{number:05d}{'long name' * 60}" for number in range(3_000)]
    start = time.process_time()
    assert near_misses([f"{name}x" for name in names], names) == []
    assert time.process_time() - start < 2  # with a letter left out of each everywhere it takes many times that
