import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from homing.errors import DataError
from homing.rates.learned.folds import held_out_folds


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.integers(2, 5), st.integers(0, 3))
def test_every_row_is_held_out_once_and_classes_are_spread_evenly(labels, folds, seed):
    labels = torch.tensor(labels)
    parts = list(held_out_folds(labels, folds, seed))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    for label in labels.unique():
        counts = [int((labels[part] == label).sum()) for part in parts]
        assert max(counts) - min(counts) <= 1


def test_seeds_split_differently_and_the_same_seed_alike():
    labels = torch.arange(20) % 4
    first, again, other = (torch.cat(list(held_out_folds(labels, 5, seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fewer_images_than_folds_are_refused():
    with pytest.raises(DataError, match="2 labelled images, fewer than the 3 folds"):
        list(held_out_folds(torch.tensor([0, 1]), 3, seed=0))
    with pytest.raises(DataError, match=r"1 labelled image, fewer than the 3 folds .*: label more images\.$"):
        list(held_out_folds(torch.tensor([0]), 3, seed=0))
