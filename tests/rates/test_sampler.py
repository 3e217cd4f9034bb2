"""Rows by rates: as often as they say, once over all processes, and going on where it stood."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from homing.errors import CheckpointError, DataError, HomingError
from homing.rates import RateBatchSampler, RateSampler, RateTable
from homing.rates.order import EpochOrder, resampled_counts
from homing.training.epoch import ExpectedVisits, draw_counts, open_epoch

some_rates = st.lists(st.floats(0, 30, width=32), min_size=1, max_size=80).filter(lambda rates: sum(rates) > 1e-3)
RATES = np.random.default_rng(0).gamma(0.5, 2.0, 200).astype(np.float32)


def in_processes(rates, world, num_samples=None, **settings):
    return [RateSampler(rates, num_samples, rank=rank, world_size=world, **settings) for rank in range(world)]


def woven(parts):
    """What processes take in turn, in the order of the whole."""
    return [rows[turn] for turn in range(len(parts[0])) for rows in parts if turn < len(rows)]


@settings(deadline=None)
@given(some_rates, st.integers(1, 300), st.integers(1, 4), st.integers(0, 2**40), st.integers(0, 50))
def test_counts_of_all_processes_differ_from_their_rates_by_less_than_one(rates, num_samples, world, seed, epoch):
    samplers = in_processes(torch.tensor(rates), world, num_samples, seed=seed)
    parts = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        parts.append(list(sampler))
        assert len(parts[-1]) == len(sampler)
    counts = np.bincount(woven(parts), minlength=len(rates))
    expected = num_samples * np.array(rates) / np.sum(rates)
    assert counts.sum() == num_samples
    assert (np.abs(counts - expected) < 1).all()
    assert not counts[np.array(rates) == 0].any()
    alone = RateSampler(rates, num_samples, seed=seed, rank=0, world_size=1)
    alone.set_epoch(epoch)
    assert woven(parts) == list(alone)


def test_an_epoch_depends_on_seed_and_number_alone():
    def epoch(seed, number):
        sampler = RateSampler(RATES, seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    orders = {(seed, number): tuple(epoch(seed, number)) for seed in (0, 1) for number in (0, 1)}
    assert len(set(orders.values())) == 4
    assert orders[1, 1] == tuple(epoch(1, 1))


def test_the_packages_own_loop_draws_the_same_rows():
    expected = ExpectedVisits(RATES, 10, 2.5, "sample")
    own = open_epoch(draw_counts(expected, 3, seed=7), 3, batch_size=9, seed=7)
    weights = np.concatenate([RATES.astype(np.float64), np.full(10, 2.5)])
    sampler = RateSampler(weights * (len(own.order) / weights.sum()), len(own.order), seed=7)
    sampler.set_epoch(3)
    drawn = [row for batch in own.batches(0, 99, accumulate=1, rank=0, num_ranks=1) for row in batch.rows.tolist()]
    theirs = np.bincount(list(sampler), minlength=len(weights)) - np.bincount(drawn, minlength=len(weights))
    assert np.abs(theirs).max() <= 1  # their sum is no whole number, so that one of them rounds it
    assert list(RateSampler(np.ones(50), seed=7)) == EpochOrder(np.ones(50, np.int32), seed=7, epoch=0)[:][0].tolist()


@pytest.mark.parametrize("cut", [0, 3, 24])
@pytest.mark.parametrize("later", [1, 2, 3])
def test_an_epoch_goes_on_in_another_number_of_processes(cut, later):
    whole = list(RateSampler(RATES, 131, seed=5))
    before = in_processes(RATES, 2, 131, seed=5)
    readers = [iter(sampler) for sampler in before]
    done = [[next(reader) for _ in range(cut)] for reader in readers]
    states = [sampler.state_dict() for sampler in before]
    assert states[0] == states[1] == json.loads(json.dumps(states[0]))
    after = in_processes(RATES, later, 131)
    for sampler in after:
        sampler.load_state_dict(states[0])
        sampler.set_epoch(0)  # as frameworks do
    rest = [list(sampler) for sampler in after]
    assert woven(done) + woven(rest) == whole
    for sampler in after:
        sampler.set_epoch(1)
    fresh = RateSampler(RATES, 131, seed=5)
    fresh.set_epoch(1)
    assert woven([list(sampler) for sampler in after]) == list(fresh)


def test_what_a_loader_has_read_ahead_is_not_taken_for_done():
    sampler = RateSampler(RATES, seed=1)
    batches = iter(DataLoader(range(len(RATES)), sampler=sampler, batch_size=10, num_workers=1))
    done = torch.cat([next(batches) for _ in range(3)]).tolist()
    state = sampler.state_dict(num_taken=30)
    del batches
    assert sampler.state_dict()["num_visited"] > 30
    later = RateSampler(RATES, seed=1)
    later.load_state_dict(state)
    assert done + list(later) == list(RateSampler(RATES, seed=1))


def test_a_state_that_is_saved_as_soon_as_it_was_loaded_is_the_same():
    first = RateSampler(RATES, seed=1)
    reader = iter(first)
    done = [next(reader) for _ in range(4)]
    second = RateSampler(RATES)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    third = RateSampler(RATES)
    third.load_state_dict(second.state_dict())
    assert done + list(third) == list(RateSampler(RATES, seed=1))
    other = RateSampler(RATES[::-1].copy())
    other.load_state_dict(second.state_dict())
    with pytest.raises(CheckpointError, match="other rates"):
        next(iter(other))


def test_what_was_taken_is_counted_from_where_a_resumed_epoch_began():
    first = RateSampler(RATES, seed=1, rank=0, world_size=2)
    reader = iter(first)
    done = [next(reader) for _ in range(30)]
    assert len(done) == 30
    later = RateSampler(RATES)
    later.load_state_dict(first.state_dict())
    assert later.state_dict(num_taken=0)["num_visited"] == 60
    ahead = iter(RateBatchSampler(later, 10))
    taken = [next(ahead) for _ in range(4)]
    state = RateBatchSampler(later, 10).state_dict(num_taken=20)
    assert (later.state_dict()["num_visited"], state["num_visited"]) == (100, 80)
    assert [*taken[0], *taken[1]] == list(RateSampler(RATES, seed=1))[60:80]
    later.set_epoch(1)
    assert later.state_dict(num_taken=20)["num_visited"] == 20


def test_rates_change_between_epochs():
    sampler = RateSampler(RATES)
    reader = iter(sampler)
    begun = [next(reader) for _ in range(20)]
    sampler.rates = torch.eye(len(RATES))[7]
    assert begun + list(reader) == list(RateSampler(RATES))  # the epoch at hand is not touched
    assert set(sampler) == {7}


def test_a_rate_table_is_read_at_the_beginning_of_each_epoch():
    table = RateTable(3)
    sampler = RateSampler(table, 300)
    assert np.bincount(list(sampler)).tolist() == [100, 100, 100]
    for _ in range(50):
        table.update(torch.arange(3), torch.tensor([-1.0, 0.0, 1.0]))
    sampler.set_epoch(1)
    drawn = np.bincount(list(sampler), minlength=3)
    assert np.abs(drawn - 300 * (table.rates / table.rates.sum()).numpy()).max() < 1


def test_an_epoch_goes_on_with_the_rates_that_it_was_drawn_by_alone():
    sampler = RateSampler(RateTable(40), seed=2)
    reader = iter(sampler)
    begun = [next(reader) for _ in range(10)]
    state, drawn_by = sampler.state_dict(), sampler.drawn_rates
    later = RateSampler(RATES[:40], seed=2)
    later.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"drawn by other rates; set sampler\.rates to those"):
        list(later)
    later.rates = drawn_by
    assert begun + list(later) == list(RateSampler(drawn_by, seed=2))
    later.load_state_dict(state)
    later.rates = RATES[:40]
    later.set_epoch(1)
    assert len(list(later)) == 40


@given(st.integers(1, 100), st.integers(1, 9), st.integers(1, 4))
def test_every_process_makes_as_many_batches_and_each_visit_is_made_once(num_samples, batch_size, world):
    if num_samples < world:
        return
    samplers = [RateBatchSampler(one, batch_size) for one in in_processes(RATES, world, num_samples)]
    batches = [list(sampler) for sampler in samplers]
    assert {len(own) for own in batches} == {len(samplers[0])}
    assert all(batch for own in batches for batch in own)
    assert all(len(batch) == batch_size for own in batches for batch in own[:-1])
    assert max(len(batch) for own in batches for batch in own) <= batch_size + (world > 1)
    rows = [row for step in zip(*batches, strict=True) for row in woven(step)]
    assert rows == list(RateSampler(RATES, num_samples, rank=0, world_size=1))


def test_batches_go_on_in_another_number_of_processes():
    whole = list(RateSampler(RATES, 131, seed=5))
    before = [RateBatchSampler(one, 8) for one in in_processes(RATES, 2, 131, seed=5)]
    readers = [iter(sampler) for sampler in before]
    done = woven([[row for _ in range(3) for row in next(reader)] for reader in readers])
    after = [RateBatchSampler(one, 4) for one in in_processes(RATES, 3, 131)]
    for sampler in after:
        sampler.load_state_dict(before[0].state_dict())
        sampler.set_epoch(0)
    rest = [list(sampler) for sampler in after]
    assert {len(own) for own in rest} == {7}
    assert done + [row for step in zip(*rest, strict=True) for row in woven(step)] == whole


def test_rates_of_a_file_by_id(tmp_path):
    path = tmp_path / "rates.parquet"
    ids = [f"{row}.png" for row in range(200)]
    pq.write_table(pa.table({"sample_id": ids, "rate": RATES}), path)
    wanted = [ids[row] for row in (7, 3, 150)]
    sampler = RateSampler.from_parquet(path, wanted, 60, seed=4)
    assert list(sampler) == list(RateSampler(RATES[[7, 3, 150]], 60, seed=4))
    with pytest.raises(DataError, match=r"rates\.parquet: 2 of 4 ids have no rate, the first of them 'a\.png'; learn"):
        RateSampler.from_parquet(path, [*wanted[:2], "a.png", "b.png"])
    with pytest.raises(DataError, match=r"the id '7\.png' occurs twice"):
        RateSampler.from_parquet(path, [*wanted, "7.png"])
    with pytest.raises(DataError, match=r"is a folder; give the rates\.parquet in it"):
        RateSampler.from_parquet(tmp_path, wanted)
    for no_ids in (None, [1, 2], "7.png"):
        with pytest.raises(DataError, match=r"ids are (of the type NoneType|no texts)"):
            RateSampler.from_parquet(path, no_ids)
    with pytest.raises(DataError, match=r"no such file; give the rates\.parquet of a run"):
        RateSampler.from_parquet(tmp_path / "none.parquet", wanted)
    pq.write_table(pa.table({"sample_id": ["a", "b", "a"], "rate": [1.0, 2.0, 3.0]}), path)
    with pytest.raises(DataError, match="the id 'a' occurs twice"):
        RateSampler.from_parquet(path, ["b"])
    pq.write_table(pa.table({"id": ["a"], "rate": [1.0]}), path)
    with pytest.raises(DataError, match=r"cannot be read as a table with the columns sample_id and rate"):
        RateSampler.from_parquet(path, ["a"])


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([1.0, -2.0, 3.0], r"1 of 3 rates are negative or not finite, the first of them that of row 1 \(-2\.0\)"),
        ([1.0, 2.0, float("nan")], r"the first of them that of row 2 \(nan\); rates are numbers of at least 0: set"),
        ([float("inf"), 2.0], r"row 0 \(inf\)"),
        ([0.0, 0.0], r"all 2 rates are 0, so that no row can be drawn"),
        ([], r"rates have shape \(0,\)"),
        ([[1.0, 2.0]], r"rates have shape \(1, 2\) and type float64; give one number for each row"),
        (["a"], r"give one number for each row"),
        ([1.0, [2.0, 3.0]], r"rates are no numbers in one dimension \(.*\); give one for each row"),
        (torch.ones(3).to_sparse(), r"rates are no numbers in one dimension"),
        ([1e308, 1e308, 0.0], r"rates sum to inf, out of what float64 divides by; scale them"),
        ([1e-320, 5e-324], r"rates sum to 1\S*e-320, out of what float64 divides by; scale them"),
    ],
)
def test_bad_rates_are_refused_in_one_sentence(rates, message):
    with pytest.raises(DataError, match=message):
        list(RateSampler(rates))


def test_rates_of_another_length_are_refused():
    sampler = RateSampler(RATES)
    with pytest.raises(DataError, match="3 rates for a sampler of 200 rows; give one for each row"):
        sampler.rates = np.ones(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0; allowed: whole numbers, 1 and more"),
        ({"num_samples": 10.0}, r"num_samples is 10\.0; allowed: whole numbers, 1 and more"),
        ({"num_samples": "5"}, "num_samples is '5'; allowed"),
        ({"num_samples": 10**30}, "num_samples is 1000"),
        ({"seed": -1}, "seed is -1; allowed: whole numbers, 0 and more"),
        ({"seed": None}, "seed is None; allowed: whole numbers, 0 and more"),
        ({"rank": 0}, "give both of them, or none"),
        ({"rank": 2, "world_size": 2}, "of 2 processes, rank is 2; allowed: whole numbers, 0 to 1"),
        ({"rank": 0, "world_size": "2"}, "world_size is '2'; allowed: whole numbers, 1 and more"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(HomingError, match=message):
        RateSampler(RATES, **settings)


@pytest.mark.parametrize("epoch", [-1, 1.0, "1", None])
def test_epochs_are_whole_numbers(epoch):
    with pytest.raises(HomingError, match=r"epoch is .*; allowed: whole numbers, 0 and more"):
        RateSampler(RATES).set_epoch(epoch)


def test_numbers_of_any_integer_type_are_as_good_as_those_of_python():
    sampler = RateSampler(RATES, torch.tensor(50), seed=np.int32(3), rank=np.int64(0), world_size=np.int64(1))
    sampler.set_epoch(np.int64(2))
    rows = [row for batch in RateBatchSampler(sampler, np.int64(8)) for row in batch]
    same = RateSampler(RATES, 50, seed=3, rank=0, world_size=1)
    same.set_epoch(2)
    assert rows == list(same)
    state = sampler.state_dict()
    assert json.loads(json.dumps(state)) == state
    same.load_state_dict({name: torch.tensor(value) for name, value in state.items()})  # as a loader may collate it
    assert same.state_dict() == state


@pytest.mark.parametrize(
    "damage", [{"num_visited": -1}, {"num_visited": 201}, {"epoch": -1}, {"seed": None}, {"num_visited": "3"}]
)
def test_a_damaged_state_is_refused(damage):
    with pytest.raises(CheckpointError, match=f"sampler state: {next(iter(damage))} is "):
        RateSampler(RATES).load_state_dict({**RateSampler(RATES).state_dict(), **damage})


def test_a_state_of_another_sampler_is_refused():
    sampler = RateSampler(RATES)
    with pytest.raises(CheckpointError, match="sampler state has entries"):
        sampler.load_state_dict({"yielded": 3})
    with pytest.raises(CheckpointError, match="sampler state has entries"):
        sampler.load_state_dict(None)
    with pytest.raises(CheckpointError, match="give num_samples=100"):
        sampler.load_state_dict(RateSampler(RATES, 100).state_dict())


def test_batches_need_a_sampler_of_rates_and_a_row_for_each_process():
    with pytest.raises(HomingError, match="it takes a RateSampler"):
        RateBatchSampler(range(3), 2)
    with pytest.raises(HomingError, match="batch_size is 0"):
        RateBatchSampler(RateSampler(RATES), 0)
    with pytest.raises(DataError, match=r"1 of 1 rows are left for 2 processes"):
        list(RateBatchSampler(RateSampler(RATES, 1, rank=0, world_size=2), 2))


def test_processes_that_do_not_know_of_each_other_are_noticed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match=r"WORLD_SIZE says that 2 processes were started, but torch\.distributed"):
        list(RateSampler(RATES))
    assert len(RateSampler(RATES, rank=1, world_size=2)) == 100


def test_a_sampler_travels_to_other_processes():
    sampler = RateSampler(RATES, seed=3)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)  # noqa: S301


def test_streamed_draws_keep_what_shuffled_ones_do():
    """Beyond 16 million rows; the pieces are the same with fewer."""
    rates = np.random.default_rng(1).random(700_001)
    expected = rates * (900_000 / rates.sum())
    counts = resampled_counts(expected, seed=3, epoch=1, streamed=True)
    assert np.abs(counts - expected).max() < 1
    assert abs(counts.sum() - 900_000) <= 1
    kept = counts.copy()
    order = EpochOrder(counts, seed=3, epoch=1, streamed=True)
    rows, copies = order[:]
    np.testing.assert_array_equal(np.bincount(rows, minlength=len(rates)), kept)
    assert len({*zip(rows[:50_000].tolist(), copies[:50_000].tolist(), strict=True)}) == 50_000
    np.testing.assert_array_equal(order[1_000:5_000:3][0], rows[1_000:5_000:3])
    other = EpochOrder(kept.copy(), seed=3, epoch=2, streamed=True)[:1_000][0]
    assert (other == rows[:1_000]).mean() < 0.01
    # neither positions nor neighbours are related: 1 / sqrt(n) is the spread of a correlation of n pairs
    assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 5 / np.sqrt(len(rows))
    assert abs(np.corrcoef(rows[1:], rows[:-1])[0, 1]) < 5 / np.sqrt(len(rows))


def test_twenty_million_rows_take_no_more_than_the_running_sum_of_their_counts():
    """Beside the rates; 100 million in benchmarks/sampler.py."""
    script = (
        "import resource, numpy as np; from homing.rates import RateSampler\n"
        "rates = np.random.default_rng(0).random(20_000_000, dtype=np.float32)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "reader = iter(RateSampler(rates)); rows = [next(reader) for _ in range(10_000)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(set(rows)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    kilobytes, distinct = map(int, done.stdout.split())
    assert kilobytes < 160_000  # 80 MB of counts and the pieces that are at hand
    assert distinct > 9_900
