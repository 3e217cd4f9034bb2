import pytest
import torch
from gaussian_domains import hidden_matches
from sklearn.metrics import roc_auc_score

from homing.errors import DataError
from homing.rates import learn_rates


def test_hidden_matching_rows_are_lifted():
    evidence = hidden_matches(seed=0)
    plan = learn_rates(evidence)
    assert roc_auc_score(evidence.matches, plan.descriptors["target_likeness"]) > 0.95
    assert plan.rates[evidence.matches].mean() > 1.5 * plan.rates[~evidence.matches].mean()


def test_fewer_target_images_than_folds_is_refused():
    evidence = hidden_matches(seed=0).with_target(torch.arange(4))
    with pytest.raises(DataError, match="4 labelled images, fewer than the 5 folds"):
        learn_rates(evidence)
