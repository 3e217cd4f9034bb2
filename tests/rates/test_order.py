import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from homing.errors import RecipeError
from homing.rates.order import EpochOrder, resampled_counts, share_of_rank
from homing.training.epoch import ExpectedVisits, draw_counts, open_epoch

SIZES, BATCHES, RANKS, PARTS = (1, 7, 64, 117), (1, 4, 5), (1, 2, 3), (1, 3)
counts_of_rows = st.lists(st.integers(0, 4), min_size=1, max_size=60).filter(any)


@given(counts_of_rows, st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_an_epoch_takes_every_row_as_often_as_its_count(counts, seed, epoch):
    rows, copies = EpochOrder(np.array(counts), seed=seed, epoch=epoch)[:]
    assert np.bincount(rows, minlength=len(counts)).tolist() == counts
    for row, count in enumerate(counts):
        assert sorted(copies[rows == row]) == list(range(count))


@settings(deadline=None)
@given(counts_of_rows, st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
@example([1], 5, 3, 3, 0)
def test_every_visit_is_made_by_exactly_one_process(counts, batch_size, num_ranks, accumulate, seed):
    check_visits(np.array(counts), batch_size, num_ranks, accumulate, seed)


@pytest.mark.parametrize("accumulate", PARTS)
@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("size", SIZES)
def test_every_row_of_an_epoch_is_visited_once(size, batch_size, num_ranks, accumulate):
    check_visits(np.ones(size, np.int64), batch_size, num_ranks, accumulate, seed=3)


def check_visits(counts, batch_size, num_ranks, accumulate, seed):
    """No visit missing, none double (asserted apart); all processes in step; the same order as one process."""
    epoch = open_epoch(counts, 2, batch_size=batch_size, seed=seed)
    visited, steps = [], []
    for rank in range(num_ranks):
        batches = list(epoch.batches(0, epoch.num_batches, accumulate=accumulate, rank=rank, num_ranks=num_ranks))
        steps.append([(len(batch.parts), batch.everyone.tolist()) for batch in batches])
        for batch in batches:
            assert 1 <= len(batch.parts) <= accumulate
            assert all(len(part.rows) and part.epoch == 2 for part in batch.parts)
            if not batch.idle:
                visited += [(r, c) for part in batch.parts for r, c in zip(part.rows, part.copies, strict=True)]
    expected = {(row, copy) for row, count in enumerate(counts) for copy in range(count)}
    assert set(visited) == expected
    assert len(visited) == len(expected)
    assert all(other == steps[0] for other in steps)  # as many parts, and the same global batches
    assert [row for _, everyone in steps[0] for row in everyone] == epoch.order[:][0].tolist()
    assert all(len(everyone) == batch_size for _, everyone in steps[0][:-1])


def test_a_stretch_of_an_epoch_is_the_same_stretch_of_the_whole():
    epoch = open_epoch(np.full(23, 2), 1, batch_size=5, seed=9)
    whole = list(epoch.batches(0, 99, accumulate=2, rank=1, num_ranks=2))
    tail = list(epoch.batches(4, 7, accumulate=2, rank=1, num_ranks=2))
    assert len(whole) == epoch.num_batches == 10
    assert [batch.rows.tolist() for batch in tail] == [batch.rows.tolist() for batch in whole[4:7]]


def test_an_idle_process_visits_a_row_that_another_one_counts():
    epoch = open_epoch(np.ones(1, np.int64), 0, batch_size=4, seed=0)
    (busy,), (idle,) = (list(epoch.batches(0, 1, accumulate=3, rank=rank, num_ranks=2)) for rank in (0, 1))
    assert (busy.idle, idle.idle) == (False, True)
    assert len(busy.parts) == len(idle.parts) == 1
    assert idle.rows.tolist() == [0]


def test_the_share_of_a_process_is_the_same_whatever_the_others_do():
    rows = np.arange(11)
    parts = [share_of_rank(rows, rank, 3) for rank in range(3)]
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_and_seeds_have_orders_of_their_own():
    counts = np.ones(50, np.int64)
    orders = [tuple(EpochOrder(counts, seed=seed, epoch=epoch)[:][0]) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(EpochOrder(counts, seed=0, epoch=0)[:][0])


@given(st.lists(st.floats(0, 30), min_size=1, max_size=80), st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_counts_are_their_expectations_rounded_up_or_down(expected, seed, epoch):
    expected = np.array(expected)
    counts = resampled_counts(expected, seed=seed, epoch=epoch)
    assert (counts >= np.floor(expected)).all()
    assert (counts <= np.ceil(expected)).all()
    assert abs(counts.sum() - expected.sum()) < 1 + 1e-9


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_whole_expectations_are_their_own_counts(expected, seed, epoch):
    assert resampled_counts(np.array(expected, np.float64), seed=seed, epoch=epoch).tolist() == expected


def test_counts_are_right_on_average():
    expected = np.array([0.05, 0.3, 1.0, 1.7, 2.5, 0.0, 0.45])
    mean = np.mean([resampled_counts(expected, seed=0, epoch=epoch) for epoch in range(4_000)], axis=0)
    # a count's spread is at most 0.5, so its mean's is 0.008; four of those
    np.testing.assert_allclose(mean, expected, atol=0.032)


def test_a_large_pool_with_rates_of_one_is_taken_once_in_every_epoch():
    ones = np.ones(1_000_003)
    assert all((resampled_counts(ones, seed=5, epoch=epoch) == 1).all() for epoch in range(5))


def test_an_epoch_is_never_empty():
    for rates, weight, row in (([0.001, 0.002, 0.0], 0.0, 1), ([0.0, 0.0], 0.001, 2), ([0.002], 0.003, 1)):
        counts = draw_counts(ExpectedVisits(np.array(rates, np.float32), 1, weight, "sample"), 0, seed=0)
        assert counts.nonzero()[0].tolist() == [row]
        assert counts.sum() == 1


def test_expected_visits_follow_the_way_of_applying():
    rates, rows = np.array([0.0, 0.5, 2.0], np.float32), np.array([4, 0, 1, 2, 3])
    assert ExpectedVisits(rates, 2, 3.0, "sample")[rows].tolist() == [3.0, 0.0, 0.5, 2.0, 3.0]
    assert ExpectedVisits(rates, 2, 3.0, "weight")[rows].tolist() == [3.0, 0.0, 1.0, 1.0, 3.0]


@pytest.mark.parametrize("weight", [1e12, 1e300, 1e9])
def test_an_epoch_that_no_memory_holds_is_refused_before_it_is_drawn(weight):
    with pytest.raises(RecipeError, match=r"^training\.target_weight: an epoch would take .* allowed: up to"):
        ExpectedVisits(np.ones(3, np.float32), 24, weight, "sample")


def old_counts(expected, seed, epoch):
    """As counts were drawn in the first edition, all at once in 8 bytes a number."""
    generator = np.random.default_rng([seed, epoch, 1])
    order = generator.permutation(len(expected))
    offset = np.floor(generator.random() * 2**24) / 2**24
    edges = np.floor(np.cumsum(expected[order], dtype=np.float64) + offset)
    counts = np.empty(len(expected), np.int64)
    counts[order] = np.diff(edges, prepend=0.0).astype(np.int64)
    return counts


def old_order(counts, seed, epoch):
    rows = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    copies = np.arange(len(rows)) - starts[rows]
    order = np.random.default_rng([seed, epoch, 0]).permutation(len(rows))
    return rows[order], copies[order]


@pytest.mark.parametrize("num_source", [5, 1_000, 700_001])
def test_pieces_and_small_numbers_give_the_very_order_of_the_first_edition(num_source):
    """Runs that were begun with it go on with the same visits; the largest pool spans several pieces."""
    rates = np.random.default_rng(num_source).gamma(0.5, 2.0, num_source).astype(np.float32)
    for apply, weight, epoch in (("sample", 2.7, 0), ("weight", 0.1, 3)):
        expected = ExpectedVisits(rates, 35, weight, apply)
        counts = draw_counts(expected, epoch, seed=11)
        whole = np.concatenate([rates.astype(np.float64) if apply == "sample" else rates > 0, np.full(35, weight)])
        assert counts.dtype == np.int32
        np.testing.assert_array_equal(counts, old_counts(whole, 11, epoch))
        rows, copies = old_order(counts, 11, epoch)
        order = EpochOrder(counts, seed=11, epoch=epoch)
        assert len(order) == len(rows)
        for start in {0, len(rows) // 2, max(0, len(rows) - 1_000)}:
            found = order[start : start + 1_000]
            np.testing.assert_array_equal(found[0], rows[start : start + 1_000])
            np.testing.assert_array_equal(found[1], copies[start : start + 1_000])


def test_counts_that_need_more_than_four_bytes_get_them():
    assert resampled_counts(np.array([0.0, 3e9, 2.0]), seed=0, epoch=0).tolist() == [0, 3_000_000_000, 2]
