"""Rates in the manner of scikit-learn: arrays in, fitted attributes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from homing.errors import DataError
from homing.rates.learned.blocks import ArrayFeatures
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.judge import FOLDS
from homing.rates.learned.learner import learn_rates
from homing.rates.learned.rate_model import DESCRIPTORS
from homing.rates.whole_numbers import whole

Array = npt.NDArray[Any]


class RateLearner(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """A rate for every row of a source, learned from a small labelled target; features of any kind, from one model.

    Args:
        descriptors: What rates may depend on: `target_likeness`, `label_consistency`, or both.
        folds: Parts of the target that settings are judged on in turn, at least 2.
        target_weight: How often each target row counts, at least 0; found by the judge where not given.
        random_state: Seed of folds and cross-fits. The same one gives the same rates; None or `RandomState`: drawn.

    Attributes:
        rates_: float32 [N] of the source, at least 0, mean 1 within each class that the target has, or `source_weight`
            of `phi_` where the source as a whole hardly helps.
        target_weight_: How often each target row counts beside them.
        sample_weight_: float32 [N + n], both of them: for `fit(np.concatenate([source_X, target_X]), …)` of any
            estimator that takes weights.
        match_: float32 [N], probability that a row is of the target's domain.
        right_: float32 [N], probability that its label is right.
        suggested_: [N] the label that fits each row best; its own unless that is probably wrong.
        phi_: The few learned numbers behind the rates.
        classes_: Labels of both pools, sorted.
        warnings_: What to know before the rates are used.
        n_features_in_: D.
    """

    def __init__(
        self,
        descriptors: Sequence[str] = DESCRIPTORS,
        *,
        folds: int = FOLDS,
        target_weight: float | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.descriptors = descriptors
        self.folds = folds
        self.target_weight = target_weight
        self.random_state = random_state

    def fit(self, source_X: Any, source_y: Any, target_X: Any, target_y: Any) -> RateLearner:
        """Learn the rates of the source.

        Args:
            source_X: [N, D] features. Arrays that are mapped from a file (`np.load(…, mmap_mode="r")`) are read in
                blocks and may be larger than memory.
            source_y: [N] labels, numbers or texts.
            target_X: [n, D] features of the target, from the same model.
            target_y: [n] its labels.

        Raises:
            DataError: Lengths or widths differ, a pool is empty, there is a single class, a target class is not in the
                source, the target has fewer rows than folds, a label is missing, or a feature is not finite.
            HomingError: A setting is out of its range.
        """
        source_X, source_y = self._checked("source", source_X, source_y, reset=True)
        target_X, target_y = self._checked("target", target_X, target_y, reset=False)
        self.classes_ = _classes_of(source_y, target_y)
        plan = learn_rates(
            Evidence(
                source_features=ArrayFeatures(source_X),
                source_labels=self._codes(source_y),
                target_features=torch.from_numpy(np.array(target_X, np.float32)),
                target_labels=self._codes(target_y),
                num_classes=len(self.classes_),
            ),
            descriptors=self.descriptors,
            folds=self.folds,
            target_weight=self.target_weight,
            seed=_seed_of(self.random_state),
        )
        assert plan.match is not None
        assert plan.right is not None
        assert plan.suggested is not None
        self.rates_, self.match_, self.right_ = (part.float().numpy() for part in (plan.rates, plan.match, plan.right))
        self.target_weight_, self.phi_, self.warnings_ = plan.target_weight, plan.phi, plan.warnings
        weights = np.full(len(target_y), plan.target_weight, np.float32)
        self.sample_weight_ = np.concatenate([self.rates_, weights])
        self.suggested_ = self.classes_[plan.suggested.numpy()]
        assert plan.scorer is not None
        self._scorer = plan.scorer
        return self

    def score_samples(self, X: Any, y: Any = None) -> npt.NDArray[np.float32]:
        """Rates of rows that the learner has not seen, at the level of its source.

        Args:
            X: [M, D] features, from the same model.
            y: [M] labels; likeness to the target alone decides where not given.

        Raises:
            DataError: A label is of no class of the source.
        """
        check_is_fitted(self)
        if y is None:
            X, codes = _validated(self, "new", X, reset=False), None
        else:
            X, y = self._checked("new", X, y, reset=False)
            codes = self._codes(y)
        scores = self._scorer(torch.from_numpy(np.array(X, np.float32)), codes)
        return np.asarray(scores.rates.float().numpy())

    def _checked(self, role: str, features: Any, labels: Any, *, reset: bool) -> tuple[Array, Array]:
        if labels is None:
            raise DataError(f"the {role} rows have no labels: it requires y to be passed, but the target y is None")
        features = _validated(self, role, features, reset=reset)
        labels = column_or_1d(_on_cpu(labels), warn=True)
        if len(features) != len(labels):
            raise DataError(f"{len(features)} {role} rows of features and {len(labels)} labels; give one for each row")
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise DataError(f"Input y of the {role} contains NaN or infinity; give a label for each row")
        if labels.dtype.kind == "O" and not _is_sortable(labels):
            raise DataError(
                f"labels of the {role} rows are missing, or of several types; give texts, or numbers, for all rows"
            )
        return features, labels

    def _codes(self, labels: Array) -> torch.Tensor:
        """Position of each label in `classes_`, int64 [M]."""
        try:
            codes = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
            unknown = self.classes_[codes] != labels
        except TypeError:  # numbers where classes are texts
            unknown = np.ones(len(labels), bool)
        if unknown.any():
            raise DataError(
                f"the label {str(labels[unknown][0])!r} is of no class of the source; known are"
                f" {', '.join(map(str, self.classes_[:20]))}"
            )
        return torch.from_numpy(codes.astype(np.int64))


def _seed_of(random_state: int | np.random.RandomState | None) -> int:
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(2**31 - 1))
    return whole("random_state", random_state, 0, 2**32 - 1)


def _is_sortable(labels: Array) -> bool:
    """Whether objects can be put in order, and each is the same as itself, which none that is missing is."""
    try:
        np.unique(labels)
        return not bool((labels != labels).any())
    except TypeError:
        return False


def _on_cpu(values: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not isinstance(values, torch.Tensor) or values.layout != torch.strided:
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _classes_of(source: Array, target: Array) -> Array:
    """Labels of both pools, sorted; some of the target's have to be the source's too."""
    of_source, of_target = np.unique(source), np.unique(target)
    if not set(of_source.tolist()) & set(of_target.tolist()):
        raise DataError(
            f"the target has the label {of_target.tolist()[0]!r}, which no source row has, and no other in common with"
            " the source; give labels that both pools share"
        )
    classes = np.unique(np.concatenate([of_source, of_target]))
    if len(classes) < 2:
        raise DataError(
            f"the source has 1 class, {classes[0]}: rates are judged by telling classes apart; give rows of"
            " two classes or more"
        )
    return classes


def _validated(learner: BaseEstimator, role: str, features: Any, *, reset: bool) -> Array:
    """Features as a numeric array [M, D]; those that are mapped from a file as they are, to be read in blocks.

    Raises:
        DataError: They are none; begins as scikit-learn's own message does, without its advice.
    """
    mapped = isinstance(features, np.memmap)
    try:
        found: Array = validate_data(
            learner,
            _on_cpu(features),
            reset=reset,
            dtype=None if mapped else [np.float32, np.float64],
            ensure_all_finite=not mapped,  # blocks are looked at as they are read
        )
    except ValueError as error:
        text = str(error)
        said = text if text.startswith("The feature names") else text.splitlines()[0].rstrip(".:")
        raise DataError(
            f"{said} (features of the {role} rows); give finite numbers [rows, columns], of one model for all rows"
        ) from error
    return found
