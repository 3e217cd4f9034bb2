"""Rows by state or digest, in shards that are whole or not there; a cache that evicts what nobody uses."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from homing.cli.app import app
from homing.errors import DataError
from homing.features.cache import CANVASES, FACTS, FEATURES, READABLE, FeatureCache, open_first
from homing.features.keys import KeySet
from homing.features.lease import start_of
from homing.features.places import BAD
from homing.outputs.artefact import host
from homing.user_cache import INDEX_FOLDER
from processes import ended, start

WIDTH = 6


def keys(count, seed=0, width=32):
    return np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)


def values_of(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def fill(store, count, seed=0, rows_per_shard=10):
    """Rows of random states and digests; returns them."""
    states, digests, values = keys(count, seed, 16), keys(count, seed + 1), values_of(count, seed)
    for begin in range(0, count, rows_per_shard):
        rows = slice(begin, min(count, begin + rows_per_shard))
        with store.writer() as shard:
            shard.add(states[rows], digests[rows], values[rows], np.ones(rows.stop - begin, bool), {})
    return states, digests, values


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache", 10**9)


def open_store(cache, name="a"):
    return cache.open({"backbone": name}, (WIDTH,))


def test_rows_are_found_by_state_and_by_digest_in_any_order(cache):
    with open_store(cache) as store:
        states, digests, values = fill(store, 95)
        order = np.random.default_rng(3).permutation(95)
        for found in (store.look_up(states[order]), store.find(digests[order])):
            np.testing.assert_array_equal(store.view(found).take(slice(None)), values[order])
            np.testing.assert_array_equal(found.digests, digests[order, :16])
        strange = store.look_up(keys(4, 99, 16))
        assert (strange.missing().tolist(), store.find(keys(4, 98)).missing().tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3])
        assert store.look_up(np.zeros((2, 16), np.uint8)).missing().tolist() == [0, 1]


def test_a_file_known_by_another_name_shares_the_rows_of_its_bytes(cache):
    with open_store(cache) as store:
        _, digests, values = fill(store, 30)
        renamed = keys(2, 50, 16)
        with store.writer() as shard:
            shard.add(renamed, digests[[4, 27]], values[:0], np.zeros(2, bool), {})
        np.testing.assert_array_equal(store.view(store.look_up(renamed)).take(slice(None)), values[[4, 27]])


def test_what_was_said_last_of_a_state_counts(cache):
    with open_store(cache) as store:
        states, digests, values = fill(store, 30)
        with store.writer() as shard:
            shard.add(states[:3], keys(3, 70), values[3:5], np.array([True, True, False]), {2: "torn"})
        found = store.look_up(states)
        np.testing.assert_array_equal(store.view(found).take(np.arange(2)), values[3:5])
        assert (found.shard[2], found.reasons) == (BAD, {2: "torn"})
        with store.writer() as shard:  # and it was mended
            shard.add(states[2:3], digests[2:3], values[:0], np.array([False]), {})
        found = store.look_up(states)
        assert found.reasons == {}
        np.testing.assert_array_equal(store.view(found).take(np.array([2])), values[[2]])


def test_blocks_and_random_rows_are_those_written(cache, monkeypatch):
    monkeypatch.setattr("homing.features.view._OPEN", 4)  # files at once: fewer than shards
    with open_store(cache) as store:
        states, _, values = fill(store, 3_000, rows_per_shard=300)
        view = store.view(store.look_up(states))
        assert (view.shape, len(view)) == ((3_000, WIDTH), 3_000)
        wanted = torch.from_numpy(values)
        assert torch.equal(view.rows(slice(100, 900)), wanted[100:900])
        for size in (0, 1, 32, 2_500):
            rows = torch.from_numpy(np.random.default_rng(size).integers(0, 3_000, size))
            assert torch.equal(view.rows(rows), wanted[rows])
        assert torch.equal(view.select(np.array([7, 7, 2_999])).tensor(), wanted[[7, 7, 2_999]])
        assert torch.equal(pickle.loads(pickle.dumps(view)).tensor(), wanted)  # noqa: S301 - our own, for workers


def test_a_data_file_is_one_that_numpy_opens(cache):
    with open_store(cache) as store:
        *_, values = fill(store, 10)
        (data,) = store.folder.glob("*.npy")
        np.testing.assert_array_equal(np.load(data, mmap_mode="r"), values)


def test_a_shard_whose_rows_are_not_what_was_written_is_removed_and_the_others_stay(cache):
    with open_store(cache) as store:
        states, _, _ = fill(store, 50)
        flipped, cut, gone, *_ = sorted(store.folder.glob("*.npy"))
        data = bytearray(flipped.read_bytes())
        data[-1] ^= 1
        flipped.write_bytes(data)
        cut.write_bytes(cut.read_bytes()[:-1])
        gone.unlink()
        assert store.look_up(states).missing().tolist() == list(range(30))
        assert not any(path.exists() for file in (flipped, cut, gone) for path in (file, file.with_suffix(".parquet")))


def test_files_without_our_mark_are_neither_read_nor_removed(cache):
    with open_store(cache) as store:
        states, _, values = fill(store, 20)
        whole = sorted(store.folder.glob("*.parquet"))[0]
        foreign = [store.folder / "mine.parquet", store.folder / "notes.txt", cache.folder / "thesis.npy"]
        foreign.append(whole.with_name(f"{whole.stem.rpartition('-')[0]}-77777.parquet"))  # named as ours are
        for path in foreign:
            path.write_bytes(whole.read_bytes()[:-9] if path.suffix == ".parquet" else b"text")
        np.testing.assert_array_equal(store.view(store.look_up(states)).take(slice(None)), values)
    FeatureCache(cache.folder, 0).shrink()
    cache.clear()
    assert all(path.exists() for path in foreign[:3])
    (cache.folder / "0" / "done.json").parent.mkdir()
    (cache.folder / "0" / "x.parquet").write_bytes(b"")
    assert cache.clear() == []


def test_a_folder_that_holds_something_else_is_refused(cache):
    with open_store(cache) as store:
        folder = store.folder
    cache.clear()
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no store of homing's"):
        open_store(cache)


def test_where_nothing_can_be_written_the_next_folder_is_used_and_it_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    caches = [FeatureCache(tmp_path / "file", 1), FeatureCache(tmp_path / "run", 1)]
    with open_first(caches, {}, (WIDTH,), say=said.append) as store:
        assert store.folder.is_relative_to(tmp_path / "run")
    assert len(said) == 1
    assert said[0].startswith(f"warning: features cannot be kept in {tmp_path / 'file'} (")


def test_eviction_takes_the_shards_unused_for_longest_and_no_more_than_it_must(cache):
    with open_store(cache, "old") as store:
        states, _, _ = fill(store, 40)
    with open_store(cache, "new") as store:
        fill(store, 40)
    with open_store(cache, "old") as store:
        store.view(store.look_up(states[30:]))  # the last shard is of use again
    entries = cache.entries()
    assert not any(entry.in_use for entry in entries)
    small = FeatureCache(cache.folder, sum(entry.bytes for entry in entries[3:]))
    small.shrink()
    assert [entry.paths for entry in cache.entries()] == [entry.paths for entry in entries[3:]]
    with open_store(cache, "old") as store:
        assert store.look_up(states).missing().tolist() == list(range(30))


def test_each_kind_of_what_is_kept_has_a_line_of_its_own_and_all_of_it_counts(cache):
    with open_store(cache) as store:
        fill(store, 20)
        (store.folder / "pool-0123456789abcdef.safetensors").write_bytes(bytes(3_000_000))
        for name, shape in (("canvases", (4, 4, 3)), ("readable", (0,))):
            with cache.open({"of": name}, shape, "uint8") as other, other.writer() as shard:
                shard.add(keys(2, 7, 16), keys(2, 8), np.zeros((2, *shape), np.uint8), np.ones(2, bool), {})
        told = CliRunner().invoke(app, ["cache", "--folder", str(cache.folder), "--clear", "--json"])
        found = json.loads(told.stdout)
        assert (found["entries"], found["removed"]) == (3, 2)  # features are in use here, and what follows from them
        assert {kind: one["entries"] for kind, one in found["removed_kinds"].items()} == {CANVASES: 1, READABLE: 1}
    told = CliRunner().invoke(app, ["cache", "--folder", str(cache.folder)])
    of_features = sum(entry.bytes for entry in cache.entries() if entry.what == FEATURES)
    assert told.stdout.splitlines()[1:] == [
        "  facts of pools: 1 file, 3.0 MB, kept",
        f"  features: 2 shards, {of_features / 1e6:.1f} MB, kept",
    ]
    FeatureCache(cache.folder, of_features).shrink()
    assert FACTS not in {entry.what for entry in cache.entries()}
    fill(store, 20)
    told = CliRunner().invoke(app, ["cache", "--folder", str(cache.folder), "--clear"])
    assert told.stdout.splitlines()[-1].endswith("removed")
    assert CliRunner().invoke(app, ["cache", "--folder", str(cache.folder)]).stdout.splitlines()[1:] == ["  nothing"]


def test_what_cannot_be_removed_is_not_told_as_removed(cache):
    with open_store(cache) as store:
        fill(store, 20)
    (cache.folder / INDEX_FOLDER / f"tar-{40 * '0'}.parquet").mkdir(parents=True)
    told = CliRunner().invoke(app, ["cache", "--folder", str(cache.folder), "--clear"]).stdout.splitlines()
    assert [line.rpartition("MB, ")[2] for line in told[1:]] == ["removed", "cannot be removed by this user, kept"]
    assert (cache.folder / INDEX_FOLDER / f"tar-{40 * '0'}.parquet").is_dir()


def hold(folder, held, release):
    cache = FeatureCache(folder, 0)
    with open_store(cache) as store:
        states, _, values = fill(store, 40)
        view = store.view(store.look_up(states[:20]))
        held.set()
        assert release.wait(100)
        assert np.array_equal(view.take(slice(None)), values[:20])


def test_nothing_is_evicted_that_a_living_process_has_in_use(tmp_path):
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    held, release = context.Event(), context.Event()
    cache = FeatureCache(tmp_path / "cache", 0)
    process = start(hold, cache.folder, held, release)
    assert held.wait(100)
    cache.shrink()
    assert [entry.in_use for entry in cache.entries()] == [True, True]  # the two that it reads, not the other two
    assert cache.clear() == []
    release.set()
    assert ended(process, 100)
    assert process.exitcode == 0
    assert cache.entries() == []  # given back, and the limit is 0


def test_leases_of_dead_processes_hold_nothing(cache):
    with open_store(cache) as store:
        fill(store, 20)
        folder = store.folder
    dead = os.fork() if hasattr(os, "fork") else 0
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    held = {"shards": None, "started": start_of(os.getpid())}
    leases = [folder / f"lease-{host()}-{dead}-0.json", folder / f"lease-{host()}-{os.getpid()}-999.json"]
    for path in leases:  # the second: the number of a living process, which was another one's then
        path.write_text(json.dumps(held | {"started": "1"}))
    far = folder / "lease-elsewhere.1-17-0.json"
    far.write_text(json.dumps(held))
    assert [entry.in_use for entry in cache.entries()] == [True, True]  # who can tell of another host?
    assert not any(path.exists() for path in leases)
    os.utime(far, ns=(1, 1))  # no sign of life for years
    assert [entry.in_use for entry in cache.entries()] == [False, False]
    assert not far.exists()


def test_data_without_an_index_is_removed_when_its_writer_is_dead(cache):
    with open_store(cache) as store:
        fill(store, 20)
        first, second = sorted(store.folder.glob("*.parquet"))
        first.unlink()
        alive = first.with_suffix(".npy")
        name = second.stem.split("-")
        dead = second.with_name("-".join([*name[:-2], str(2**22 + 1), "0"]) + ".npy")
        dead.write_bytes(b"")
    with open_store(cache):
        assert (alive.exists(), dead.exists()) == (True, False)


def test_rows_that_were_evicted_under_a_reader_are_told(cache):
    with open_store(cache) as store:
        states, _, _ = fill(store, 20)
        view = store.view(store.look_up(states))
        for path in Path(store.folder).glob("*.npy"):
            path.unlink()
        with pytest.raises(DataError, match=r"cannot be read .*; start again"):
            view.take(slice(None))


def test_an_empty_shard_leaves_nothing_and_a_full_disk_no_half_one(cache):
    with open_store(cache) as store:
        with store.writer():
            pass
        shard = store.writer()
        shard.add(keys(2, 0, 16), keys(2), values_of(2), np.ones(2, bool), {})
        shard.__exit__(OSError, OSError(28, "No space left on device"), None)
        left = {path.name for path in store.folder.iterdir() if not path.name.startswith("lease")}
        assert left == {"done.json"}


def test_keys_that_share_a_half_are_told_apart():
    half = keys(1, 1, 8).repeat(300, axis=0)
    some = np.concatenate([half, keys(300, 2, 8)], axis=1)
    some[100:200] = some[:100]  # and copies
    found = KeySet(some)
    assert len(found) == 200
    np.testing.assert_array_equal(found.find(some), found.of_row)
    assert (found.find(np.concatenate([half, keys(300, 3, 8)], axis=1)) == -1).all()
    np.testing.assert_array_equal(some[found.one_row_each()][found.of_row], some)
