"""Small shards become one, and the store says what it said before: after a kill too, and to those who read then."""

import os
import signal
import sys

import numpy as np
import pytest
from test_store import WIDTH, keys, values_of

from homing.features.cache import FeatureCache
from homing.features.lease import Lease, in_use
from homing.features.places import BAD
from processes import start

FULL, ROWS, SCANS = 160, 9, 12  # a shard of up to 10 rows is small


def open_store(folder):
    return FeatureCache(folder, 10**9).open({}, (WIDTH,), rows_per_shard=FULL)


def indices(folder):
    return sorted(folder.glob("*/*.parquet"))


def data(folder):
    return sorted(folder.glob("*/*.npy"))


def grow(folder, scans=SCANS, rows=ROWS):
    """What scans of a pool that grows leave: two files are said anew by each, and all but the first find a copy."""
    reader = open_store(folder)  # somebody reads all the while: nothing is merged
    for scan in range(scans):
        states = np.concatenate([keys(2, 0, 16), keys(rows - 2, 100 + scan, 16)])
        digests, here = keys(rows, 200 + scan), np.ones(rows, bool)
        here[0] = scan % 2 == 0
        if scan:
            digests[2], here[2] = keys(rows, 200)[5], False
        with open_store(folder) as store, store.writer() as shard:
            why = {} if here[0] else {0: f"torn {scan}"}
            shard.add(states, digests, values_of(rows, scan)[here], here, why)
    reader.lease.give_back()


def answers(folder, scans=SCANS, rows=ROWS):
    """What the store says of all files."""
    states = np.concatenate([keys(2, 0, 16), *(keys(rows - 2, 100 + scan, 16) for scan in range(scans))])
    store = open_store(folder)
    by_state = store.look_up(states)
    by_digest = store.find(np.concatenate([keys(rows, 200 + scan) for scan in range(scans)]))
    values = [store.view(places).take(slice(None)) for places in (by_state, by_digest)]
    store.lease.give_back()
    bad = (by_state.shard == BAD).tolist()
    return *values, by_state.digests, by_state.reasons, bad, by_state.missing().tolist()


def same(one, other):
    for left, right in zip(one, other, strict=True):
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


def test_a_pool_that_grew_a_dozen_times_lies_in_one_shard_and_nothing_else_has_changed(tmp_path):
    grow(tmp_path)
    assert len(indices(tmp_path)) == SCANS
    before, used = answers(tmp_path), max(path.stat().st_mtime_ns for path in indices(tmp_path))
    open_store(tmp_path).close()
    assert (len(indices(tmp_path)), len(data(tmp_path))) == (1, 1)
    same(answers(tmp_path), before)
    assert indices(tmp_path)[0].stat().st_mtime_ns >= used
    with open_store(tmp_path) as store, store.writer() as shard:  # what is said later counts more, as ever
        shard.add(keys(1, 0, 16), keys(1, 9), values_of(1, 9), np.ones(1, bool), {})
    np.testing.assert_array_equal(answers(tmp_path)[0][0], values_of(1, 9)[0])


def test_large_shards_and_few_small_ones_stay_as_they_are(tmp_path):
    grow(tmp_path / "large", rows=11)
    grow(tmp_path / "few", scans=7)
    for name in ("large", "few"):
        before = indices(tmp_path / name)
        open_store(tmp_path / name).close()
        assert indices(tmp_path / name) == before


def test_what_somebody_reads_stays_and_shards_on_both_sides_of_it_are_merged_apart(tmp_path):
    grow(tmp_path, scans=19)
    before, middle = answers(tmp_path, scans=19), indices(tmp_path)[9]
    lease = Lease(middle.parent)
    open_store(tmp_path).close()
    assert len(indices(tmp_path)) == 19  # it holds them all
    lease.narrow_to([middle.stem])
    open_store(tmp_path).close()
    assert (len(indices(tmp_path)), middle in indices(tmp_path)) == (3, True)
    lease.give_back()
    same(answers(tmp_path, scans=19), before)


def test_rows_that_a_reader_found_before_they_were_merged_stay(tmp_path):
    grow(tmp_path)
    process = start(_merge_beside_a_reader, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert (len(indices(tmp_path)), len(data(tmp_path))) == (1, 3)  # it reads two of them


def _merge_beside_a_reader(folder):
    reader = []

    def watch(event, details):
        if event == "os.rename" and str(details[1]).endswith(".npy") and not reader:
            reader.append(None)
            store = open_store(folder)
            reader[0] = store.view(store.look_up(keys(7, 103, 16)))

    sys.addaudithook(watch)
    open_store(folder).close()
    np.testing.assert_array_equal(reader[0].take(np.arange(1, 7)), values_of(9, 3)[3:])
    os._exit(0)


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_while_shards_are_merged_changes_no_answer(tmp_path, moment):
    grow(tmp_path)
    before = answers(tmp_path)
    process = start(_merge_until, tmp_path, moment)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    same(answers(tmp_path), before)
    open_store(tmp_path).close()  # the next scan merges what is left; where half of it went already, it is too few
    same(answers(tmp_path), before)
    assert len(indices(tmp_path)) == 1 or len(indices(tmp_path)) < 8


def _merge_until(folder, moment):
    """Die when a file is about to get its name, or to go."""
    seen = []

    def watch(event, details):
        of_store = event in ("os.rename", "os.remove") and str(details[-3 if event == "os.rename" else 0])
        if of_store and any(part in of_store for part in (".npy", ".parquet")):
            seen.append(event)
            if len(seen) == (1, 2, 3, 4, 8, 14, 15, 20)[moment]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    open_store(folder).close()


def test_a_lease_that_nobody_can_remove_does_not_hide_those_that_are_held(tmp_path):
    held = Lease(tmp_path)
    held.narrow_to(["a"])
    for number in range(8):  # whatever comes first where the folder is listed
        (tmp_path / held.path.name.replace(f"-{os.getpid()}-", f"-{2**22 + number}-")).mkdir()
    assert in_use(tmp_path) == {"a"}
