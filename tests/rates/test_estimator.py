"""Rates as scikit-learn's users expect them."""

import numpy as np
import pandas as pd
import pytest
import torch
from gaussian_domains import hidden_matches
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

from homing.errors import DataError, HomingError
from homing.rates import RateLearner, learn_rates

EVIDENCE = hidden_matches(seed=0, wrong=0.2)
NAMES = np.array(["ant", "bee", "cat", "dog"])
SOURCE_X, SOURCE_Y = EVIDENCE.source_features.numpy(), NAMES[EVIDENCE.source_labels]
TARGET_X, TARGET_Y = EVIDENCE.target_features.numpy(), NAMES[EVIDENCE.target_labels]


@pytest.fixture(scope="module")
def learner():
    return RateLearner().fit(SOURCE_X, SOURCE_Y, TARGET_X, TARGET_Y)


def test_rates_are_those_of_learn_rates(learner):
    plan = learn_rates(EVIDENCE, seed=0)
    np.testing.assert_array_equal(learner.rates_, plan.rates.numpy())
    assert learner.phi_ == plan.phi
    assert learner.target_weight_ == plan.target_weight
    assert learner.classes_.tolist() == NAMES.tolist()
    assert learner.n_features_in_ == SOURCE_X.shape[1]


def test_a_class_of_the_target_alone_is_a_class_too():
    first = NAMES[0]
    kept = first != SOURCE_Y
    found = RateLearner().fit(SOURCE_X[kept], SOURCE_Y[kept], TARGET_X, TARGET_Y)
    assert found.classes_.tolist() == NAMES.tolist()
    assert first not in found.suggested_
    assert len(found.rates_) == kept.sum()


def test_matches_and_right_labels_are_told_from_the_others(learner):
    assert roc_auc_score(EVIDENCE.matches, learner.match_) > 0.95
    assert roc_auc_score(EVIDENCE.clean, learner.right_) > 0.9
    corrected = learner.suggested_[~EVIDENCE.clean.numpy()] != SOURCE_Y[~EVIDENCE.clean.numpy()]
    assert corrected.mean() > 0.5


def test_weights_are_ready_for_any_estimator(learner):
    both, labels = np.concatenate([SOURCE_X, TARGET_X]), np.concatenate([SOURCE_Y, TARGET_Y])
    assert learner.sample_weight_.shape == (len(both),)
    test = hidden_matches(seed=1, shots=100)

    def score(weights):
        model = LogisticRegression(max_iter=500).fit(both, labels, sample_weight=weights)
        return model.score(test.target_features.numpy(), NAMES[test.target_labels])

    assert score(learner.sample_weight_) > score(None) + 0.04


def test_new_rows_are_rated_as_the_source_is(learner):
    rates = learner.score_samples(SOURCE_X, SOURCE_Y)
    assert np.corrcoef(rates, learner.rates_)[0, 1] > 0.9
    assert rates.dtype == np.float32
    alone = learner.score_samples(SOURCE_X)
    assert roc_auc_score(EVIDENCE.matches, alone) > 0.95
    with pytest.raises(DataError, match=r"the label 'elk' is of no class of the source; known are ant, bee, cat, dog"):
        learner.score_samples(SOURCE_X[:1], ["elk"])
    with pytest.raises(NotFittedError):
        RateLearner().score_samples(SOURCE_X)


def test_features_may_lie_in_a_file_of_half_precision(learner, tmp_path):
    np.save(tmp_path / "source.npy", SOURCE_X.astype(np.float16))
    mapped = np.load(tmp_path / "source.npy", mmap_mode="r")
    found = RateLearner().fit(mapped, SOURCE_Y, TARGET_X, TARGET_Y)
    assert np.corrcoef(found.rates_, learner.rates_)[0, 1] > 0.99


def test_settings_are_those_of_the_learner():
    learner = RateLearner(descriptors=(), folds=3, target_weight=2.0, random_state=5)
    assert clone(learner).get_params() == learner.get_params()
    learner.fit(SOURCE_X, SOURCE_Y, TARGET_X, TARGET_Y)
    assert learner.target_weight_ == 2.0
    assert np.unique(learner.rates_).tolist() == [1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "folds is 1; allowed: whole numbers, 2 and more"),
        ({"folds": 2.5}, r"folds is 2\.5; allowed"),
        ({"target_weight": -1}, "target_weight is -1; allowed: finite numbers of at least 0, or None"),
        ({"target_weight": float("nan")}, "target_weight is nan; allowed"),
        ({"target_weight": float("inf")}, "target_weight is inf; allowed"),
        ({"target_weight": "much"}, "target_weight is 'much'; allowed"),
        ({"descriptors": "target_likeness"}, "descriptors is 'target_likeness'; give a list of names"),
        ({"descriptors": None}, "descriptors is None; give a list of names"),
        ({"descriptors": ["likeness"]}, "Unknown descriptor 'likeness'"),
        ({"random_state": -1}, "random_state is -1; allowed: whole numbers, 0 to 4294967295"),
        ({"random_state": "1"}, "random_state is '1'; allowed: whole numbers"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(HomingError, match=message):
        RateLearner(**settings).fit(SOURCE_X, SOURCE_Y, TARGET_X, TARGET_Y)


def test_a_random_state_is_any_that_scikit_learn_takes():
    def rates(random_state):
        return RateLearner(folds=2, random_state=random_state).fit(SOURCE_X, SOURCE_Y, TARGET_X, TARGET_Y).rates_

    np.testing.assert_array_equal(rates(np.int64(3)), rates(3))
    np.testing.assert_array_equal(rates(np.random.RandomState(3)), rates(np.random.RandomState(3)))
    assert len(rates(None)) == len(SOURCE_X)


def test_tensors_of_any_type_are_features():
    source, target = (torch.from_numpy(part).bfloat16().requires_grad_() for part in (SOURCE_X, TARGET_X))
    found = RateLearner(folds=2).fit(source, EVIDENCE.source_labels, target, EVIDENCE.target_labels)
    rounded = [part.detach().float().numpy() for part in (source, target)]
    same = RateLearner(folds=2).fit(rounded[0], EVIDENCE.source_labels, rounded[1], EVIDENCE.target_labels)
    np.testing.assert_array_equal(found.rates_, same.rates_)
    np.testing.assert_array_equal(found.score_samples(source), same.score_samples(rounded[0]))


def test_numbers_are_of_no_class_of_texts():
    learner = RateLearner(folds=2).fit(SOURCE_X, SOURCE_Y.astype(object), TARGET_X, TARGET_Y.astype(object))
    with pytest.raises(DataError, match="the label '1' is of no class of the source"):
        learner.score_samples(SOURCE_X[:2], [1, 2])


class OfOnePool(RateLearner):
    """What scikit-learn's checks can call, which know of one pool alone: half of it stands for the target."""

    def fit(self, X, y):
        if y is None or issparse(X):
            return super().fit(X, y, X, y)
        return super().fit(X, y, np.asarray(X)[::2], np.asarray(y)[::2])


@pytest.mark.filterwarnings("ignore")
def test_it_passes_the_checks_of_scikit_learn():
    results = check_estimator(OfOnePool(folds=2), on_fail=None, on_skip=None)
    found = {result["check_name"]: repr(result["exception"]) for result in results if result["status"] == "failed"}
    assert found == {}
    assert len(results) > 40


BAD = {
    "another length": ((SOURCE_X, SOURCE_Y[1:], TARGET_X, TARGET_Y), "600 source rows of features and 599 labels"),
    "another width": (
        (SOURCE_X, SOURCE_Y, TARGET_X[:, 1:], TARGET_Y),
        r"X has 23 features, .*\(features of the target rows\)",
    ),
    "no target": ((SOURCE_X, SOURCE_Y, TARGET_X[:0], TARGET_Y[:0]), r"0 sample.*\(features of the target rows\)"),
    "small target": ((SOURCE_X, SOURCE_Y, TARGET_X[:3], TARGET_Y[:3]), "3 labelled .* fewer than the 5 folds"),
    "one class": (
        (SOURCE_X, SOURCE_Y == "x", TARGET_X, TARGET_Y == "x"),
        "the source has 1 class, False: .* give rows of two",
    ),
    "strange classes": (
        (SOURCE_X, SOURCE_Y, TARGET_X, ["elk"] * 24),
        "the target has the label 'elk', which no source",
    ),
    "not a number": (
        (np.where(SOURCE_X > 4, np.nan, SOURCE_X), SOURCE_Y, TARGET_X, TARGET_Y),
        r"^Input X contains NaN \(features of the source rows\); give finite numbers .* all rows$",
    ),
    "label not a number": ((SOURCE_X, np.full(600, np.nan), TARGET_X, TARGET_Y), "y of the source contains NaN"),
    "no labels": ((SOURCE_X, SOURCE_Y, TARGET_X, None), "the target rows have no labels"),
    "labels missing": (
        (SOURCE_X, np.where(SOURCE_Y == "ant", None, SOURCE_Y.astype(object)), TARGET_X, TARGET_Y),
        "labels of the source rows are missing, or of several types; give texts, or numbers, for all rows",
    ),
    "labels of pandas missing": (
        (SOURCE_X, SOURCE_Y, TARGET_X, pd.Series(TARGET_Y, dtype="string").mask(TARGET_Y == "ant")),
        "labels of the target rows are missing",
    ),
    "objects not numbers": (
        (SOURCE_X, np.where(SOURCE_Y == "ant", np.nan, 1.0).astype(object), TARGET_X, TARGET_Y),
        "labels of the source rows are missing",
    ),
    "texts and numbers": (
        (SOURCE_X, np.where(SOURCE_Y == "ant", 7, SOURCE_Y.astype(object)), TARGET_X, TARGET_Y),
        "labels of the source rows are missing, or of several types",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_pools_are_refused_in_one_sentence(kind):
    pools, message = BAD[kind]
    with pytest.raises(DataError, match=message):
        RateLearner().fit(*pools)


def test_features_beyond_float32_are_refused():
    learner = RateLearner().fit(SOURCE_X, SOURCE_Y, TARGET_X, TARGET_Y)
    source, target = SOURCE_X.astype(np.float64), TARGET_X.astype(np.float64)
    source[4, 2] = target[4, 2] = 1e40
    message = r"features of 1 {} row are not finite \(first: row 4\).* up to 3.4e38".format
    with pytest.raises(DataError, match=message("source")):
        RateLearner().fit(source, SOURCE_Y, TARGET_X, TARGET_Y)
    with pytest.raises(DataError, match=message("target")):
        RateLearner().fit(SOURCE_X, SOURCE_Y, target, TARGET_Y)
    with pytest.raises(DataError, match=message("new")):
        learner.score_samples(target, TARGET_Y)


def test_rows_of_a_file_that_are_not_finite_are_named(tmp_path):
    broken = SOURCE_X.copy()
    broken[7, 2] = np.inf
    np.save(tmp_path / "source.npy", broken)
    with pytest.raises(HomingError, match=r"features of 1 source row are not finite \(first: row 7\)"):
        RateLearner().fit(np.load(tmp_path / "source.npy", mmap_mode="r"), SOURCE_Y, TARGET_X, TARGET_Y)
