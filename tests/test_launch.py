"""Which of several processes this is; what an earlier launcher left is no group."""

from __future__ import annotations

import pytest

from homing.launch import group_of, processes_here, settle_group

WHOLE = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_a_whole_group_is_one():
    assert group_of(WHOLE) == (1, 4)
    assert processes_here(WHOLE | {"LOCAL_WORLD_SIZE": "2"}) == 2
    kept = dict(WHOLE)
    assert settle_group(kept) is None
    assert kept == WHOLE


@pytest.mark.parametrize("lacks", WHOLE)
@pytest.mark.parametrize("instead", [None, "", "x", "-1", "1e3", "99999999999", "²"])
def test_half_a_group_is_a_process_alone(lacks, instead):
    if lacks == "MASTER_ADDR" and instead:
        return  # any text may be a host
    environment = {name: value for name, value in WHOLE.items() if name != lacks}
    if instead is not None:
        environment[lacks] = instead
    assert group_of(environment) == (0, 1)
    assert processes_here(environment | {"LOCAL_WORLD_SIZE": "8"}) == 1
    warning = settle_group(environment)
    assert not environment.keys() & WHOLE.keys()
    assert warning is not None
    assert "runs alone" in warning


def test_a_rank_beyond_the_group_is_none():
    assert group_of(WHOLE | {"RANK": "4"}) == (0, 1)


def test_what_a_group_of_one_left_is_no_warning():
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "PATH": "/bin"}
    assert settle_group(environment) is None
    assert environment == {"PATH": "/bin"}
