import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from homing.pools.order import key_to_seed, keyed_uniform


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(0, 99))
def test_a_keyed_number_depends_on_its_own_key_alone(rows, epoch):
    together = keyed_uniform(7, epoch, np.array(rows), num=3)
    apart = np.concatenate([keyed_uniform(7, epoch, row, num=3) for row in rows])
    np.testing.assert_array_equal(together, apart)
    assert ((together >= 0) & (together < 1)).all()


def test_keyed_numbers_are_uniform_and_unrelated():
    drawn = keyed_uniform(0, 0, np.arange(20_000), num=2)
    columns = [
        *drawn.T,
        keyed_uniform(0, 1, np.arange(20_000), num=1)[:, 0],
        keyed_uniform(1, 0, np.arange(20_000), num=1)[:, 0],
    ]
    for column in columns:
        shares = np.histogram(column, bins=10, range=(0, 1))[0] / 20_000
        np.testing.assert_allclose(shares, 0.1, atol=0.01)  # 4.7 standard errors
    correlation = np.corrcoef([*columns, np.roll(columns[0], 1)])
    assert np.abs(correlation - np.eye(5)).max() < 0.035  # 5 standard errors


def test_seeds_of_keys_differ_and_stay_the_same():
    seeds = {key_to_seed(seed, step) for seed in range(50) for step in range(50)}
    assert len(seeds) == 2_500
    assert key_to_seed(0, 0) == key_to_seed(0, 0)
    assert all(0 <= seed < 2**53 for seed in seeds)
