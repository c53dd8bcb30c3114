"""Base class of all heads: input checks, class codes, probabilities and temperature scaling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from featcache import Classifier, ClassifierStep
from featcache.errors import InvalidRequest

from .arguments import (
    as_features,
    check_classes,
    check_codes,
    is_on_disk,
    labelled_rows,
    unpack_features,
)
from .calibration import score_chunks
from .groups import Codes, needed_groups
from .weights import ClassWeight, RowWeights, check_sample_weight, merge_copies, row_weights

if TYPE_CHECKING:
    from featcache import Features

Floats = NDArray[np.float32]
RandomState = int | np.random.RandomState | None
HeadT = TypeVar("HeadT", bound="Head")
# Its parameters have no annotations, and their defaults are not of the type that they take.
_validate_data: Callable[..., Any] = validate_data


class Head(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base class of heads: classifiers on embeddings with the interface of scikit-learn.

    A head implements `_fit_codes`, `_scores` and `_steps`. The probability of each class is the
    softmax of the scores divided by `temperature_`.

    Attributes
    ----------
    classes_ : ndarray (k,)
        Sorted labels, of the type that was passed.
    n_features_in_ : int
        Width of the embedding.
    temperature_ : float
        Divisor of the scores (Guo et al. 2017, arXiv:1706.04599), fitted on rows held out of
        training, by cross-validation if those are few, else from a prior. Above 1 it makes
        probabilities less confident.
    trains_in_seconds : bool
        Whether training on thousands of rows takes seconds only; the benchmark draws few-shot
        curves, of many trainings, for such heads.
    can_be_bundled : bool
        Whether `to_classifier` is supported, so that a bundle can hold the head.
    """

    trains_in_seconds: ClassVar[bool] = True
    can_be_bundled: ClassVar[bool] = True

    class_weight: ClassWeight
    n_features_in_: int

    def fit(
        self,
        X: Features | ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Head:
        """Train on embeddings.

        Parameters
        ----------
        X : featcache.Features or array-like (n, d)
            Embeddings; converted to float32.
        y : array-like (n,), optional
            Labels of one sortable type; default: the codes of the features. Rows whose label is
            None or NaN are unlabelled: they are left out, which is logged.
        sample_weight : array-like (n,), optional
            Weight of each row, from 0; default: 1. Equal rows of one class are merged into one
            row with the sum of their weights.
        groups : array-like (n,), optional
            Hashable label of the group of each row, such as the photo of which it is a view. Rows
            of one group are never both trained on and held out when `C`, the number of epochs
            or rounds, and the temperature are determined; fractions and numbers of rows that
            the parameters name are of groups then. Default for features: the image ids.

        Returns
        -------
        Head
            Itself.

        Raises
        ------
        InvalidRequest
            If there are no labels, the labels are not classes or are all of one class, or
            `sample_weight` or `groups` is not valid.
        ValueError
            If shapes differ, or values are not finite.
        """
        features = as_features(X)
        self._feature_classes = features.classes if features is not None and y is None else None
        X, y, groups = unpack_features(X, y, groups)
        X, y, sample_weight, numbers = labelled_rows(
            type(self).__name__, X, y, sample_weight, groups
        )
        X, y = _validate_data(self, X, y, dtype=np.float32, order="C")
        rows, y = np.asarray(X), np.asarray(y)
        kept, codes, sample = self._encode(y, sample_weight)
        rows, numbers = rows[kept], None if numbers is None else numbers[kept]
        rows, codes, sample, numbers = merge_copies(rows, codes, sample, numbers)
        weights = row_weights(self.class_weight, self.classes_, codes, sample)
        self._fit_codes(rows, codes, weights, needed_groups(numbers))
        return self

    def _encode(
        self, y: NDArray[Any], sample_weight: ArrayLike | None
    ) -> tuple[NDArray[np.int64] | slice, Codes, NDArray[np.float64] | None]:
        """Set `classes_`; return the rows with a weight, their codes and their weights."""
        check_classes(y)
        sample = check_sample_weight(sample_weight, len(y))
        kept: NDArray[np.int64] | slice = slice(None)
        if sample is not None:
            kept = np.flatnonzero(sample > 0)
            y, sample = y[kept], sample[kept]
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidRequest(
                f"A head needs rows of at least two classes, but y has only one class: "
                f"{self.classes_.tolist()[0]!r}.",
                received=self.classes_.tolist(),
            )
        self.temperature_ = 1.0
        return kept, codes.astype(np.int64), sample

    def score(
        self,
        X: Features | ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the accuracy on the labelled rows.

        Parameters
        ----------
        X : featcache.Features or array-like (n, d)
            Embeddings.
        y : array-like (n,), optional
            Labels; default: the codes of the features. Rows whose label is None or NaN are left
            out, which is logged.
        sample_weight : array-like (n,), optional
            Weight of each row; default: 1.

        Returns
        -------
        float
            Between 0 and 1.

        Raises
        ------
        InvalidRequest
            If no row has a label, or the codes of the features are not of the classes that the
            head was trained on.
        """
        check_is_fitted(self, "classes_")
        features = as_features(X)
        if features is not None and y is None:
            check_codes(self.classes_, self._feature_classes, features)
        X, y, _ = unpack_features(X, y, None)
        X, y, sample_weight, _ = labelled_rows(type(self).__name__, X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like (n, d)
            Embeddings; converted to float32.

        Returns
        -------
        ndarray (n, k), float64
            Rows sum to 1; columns in the order of `classes_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the head is not trained.
        ValueError
            If the width differs, or values are not finite.
        """
        parts = [
            softmax(np.asarray(self._scores(rows), np.float64) / self.temperature_, axis=1)
            for rows in self._checked_chunks(X)
        ]
        return np.concatenate(parts)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row.

        Parameters
        ----------
        X : array-like (n, d)
            Embeddings; converted to float32.

        Returns
        -------
        ndarray (n,)
            Of the dtype of `classes_`.
        """
        parts = [self._scores(rows).argmax(axis=1) for rows in self._checked_chunks(X)]
        codes = np.concatenate(parts)
        return np.asarray(self.classes_[codes])

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of trained parameters."""

    def to_classifier(self, classes: Sequence[Any] | None = None) -> Classifier:
        """Return the trained head as plain arrays, for a bundle.

        Parameters
        ----------
        classes : sequence of str, int or bool, optional
            Names of `classes_`, in their order. Default: `classes_`;
            `featcache.make_bundle` replaces codes by their labels.

        Returns
        -------
        Classifier
            Gives the same probabilities, and needs NumPy alone.

        Raises
        ------
        InvalidRequest
            If `can_be_bundled` is False.
        """
        check_is_fitted(self, "classes_")
        names = self.classes_.tolist() if classes is None else list(classes)
        return Classifier(self._steps(), names, self.n_features_in_, float(self.temperature_))

    def _checked_rows(self, X: ArrayLike) -> Floats:
        check_is_fitted(self, "classes_")
        rows = _validate_data(self, X, dtype=np.float32, order="C", reset=False)
        return np.asarray(rows, np.float32)

    def _checked_chunks(self, X: ArrayLike) -> Iterator[Floats]:
        """Yield rows in chunks, so that scoring a million does not copy or read all at once."""
        if is_on_disk(X) and len(X):  # type: ignore[arg-type]
            for chunk in self._chunks(X):
                yield self._checked_rows(X[chunk])  # type: ignore[index]
            return
        rows = self._checked_rows(X)
        for chunk in self._chunks(rows):
            yield rows[chunk]

    def _chunks(self, rows: Any) -> list[slice]:
        return score_chunks(len(rows), self._widest())

    def _widest(self) -> int:
        """Return the largest number of values per row that `_scores` computes."""
        return max(len(self.classes_), self.n_features_in_)

    @abstractmethod
    def _fit_codes(
        self, X: Floats, codes: NDArray[np.int64], weights: RowWeights, groups: Codes | None
    ) -> None:
        """Train on class codes 0..k-1, and set `temperature_` if the scores need one.

        Rows of one group, numbered from 0 without gaps, are not both trained on and held out.
        """

    @abstractmethod
    def _scores(self, X: Floats) -> NDArray[Any]:
        """Return scores (n, k) whose softmax is a distribution over the classes."""

    @abstractmethod
    def _steps(self) -> list[ClassifierStep]:
        """Return the steps that give the scores."""


def unfitted(head: HeadT) -> HeadT:
    """Return a head with the same parameters, not fitted."""
    return cast(HeadT, clone(head))


def integer_seed(random_state: object) -> int:
    """Return the integer seed of one training.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None
        An integer is returned as it is; otherwise the seed is drawn from the state, or at random.

    Returns
    -------
    int

    Examples
    --------
    >>> integer_seed(7)
    7
    """
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(random_generator(random_state).randint(2**31 - 1))


def random_generator(random_state: object) -> np.random.RandomState:
    """Return the random generator that a seed defines, as `sklearn.utils.check_random_state`.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None

    Raises
    ------
    InvalidRequest
        If it is neither.
    """
    try:
        return cast(np.random.RandomState, check_random_state(random_state))
    except ValueError as error:
        raise InvalidRequest(
            f"random_state={random_state!r} must be a whole number from 0 to 4,294,967,295, a "
            "numpy.random.RandomState or None.",
            received=random_state,
        ) from error
