"""Nearest neighbours: each class gets the votes of the most similar training rows."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from featcache import ClassifierStep
from featcache.errors import InvalidRequest
from featcache.toolkit import check_choice

from .base import Floats, Head
from .calibration import cross_fitted_temperature, prior_temperature
from .groups import Codes
from .parameters import Integers, check_parameters
from .scaling import StandardScaler
from .weights import ClassWeight, RowWeights

Rows = NDArray[np.int64]
Metric = Literal["cosine", "euclidean"]
VoteWeights = Literal["uniform", "distance"]

# Similarities of a block of rows to all training rows, float32.
_SIMILARITIES_PER_BLOCK = 4_000_000
# Values of the candidates of a block of rows, gathered for exact distances, float64.
_VALUES_PER_BLOCK = 2_000_000
# Candidates beyond `n_neighbors`: float32 orders almost equal similarities by chance, and
# differently for other numbers of rows.
_MORE_CANDIDATES = 8
# Below the resolution of float32, where a distance tells nothing but that the rows are equal.
_EQUAL = 1e-6
# Many folds, since training takes no time: without a third of the rows the neighbours of a row are
# much farther away, and the probabilities of the head on all rows would be too cautious.
_FOLDS = 10
_MAX_HELD_OUT = 2000


class KNNHead(Head):
    """Votes of the nearest training rows, on embeddings minus their mean.

    Columns are not divided by their standard deviations: with MobileNetV2 features of Stanford
    Dogs that costs accuracy. The estimate of a class is its fraction of the votes, smoothed by the
    m-estimate of Cestnik 1990 ("Estimating probabilities: a crucial task in machine learning",
    ECAI-90) with equal priors and as many virtual votes as there are votes: no class has
    probability 0, and the order of the classes stays. With fewer virtual votes the log loss is
    larger, since too often no neighbour is of a row's class. The scores are the logarithms of the
    estimates, with a temperature fitted on rows held out of training.

    Parameters
    ----------
    n_neighbors : int
        Number of training rows that vote, at most the mean number of rows per class. Equal rows
        of a class are one row with the sum of their weights.
    weights : {"distance", "uniform"}
        Weight of the votes, as in `sklearn.neighbors.KNeighborsClassifier`: the inverse of the
        distance, or 1. Rows at distance 0, if there are any, vote alone with ``"distance"``.
    metric : {"cosine", "euclidean"}
        Distance of two rows: 1 minus the cosine of their angle, or the Euclidean distance.
    class_weight : {None, "balanced"} or dict
        Factor of the votes of each label, as is `sample_weight` of each row; "balanced" gives
        all classes the same total weight.

    Attributes
    ----------
    rows_ : ndarray (n, d), float32
        The training rows minus `mean_`; of length 1 with ``metric="cosine"``.

    mean_ : ndarray (d,), float32
        Mean of the training embeddings.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    >>> KNNHead(n_neighbors=5).fit(X, X[:, 0] > 0).predict(X).shape
    (40,)
    """

    can_be_bundled: ClassVar[bool] = False

    def __init__(
        self,
        n_neighbors: int = 20,
        weights: VoteWeights = "distance",
        metric: Metric = "cosine",
        class_weight: ClassWeight = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.metric = metric
        self.class_weight = class_weight

    @property
    def n_parameters(self) -> int:
        """Number of stored values: all training rows are kept, and nothing else is trained."""
        check_is_fitted(self, "rows_")
        return int(self.rows_.size)

    def _fit_codes(self, X: Floats, codes: Rows, weights: RowWeights, groups: Codes | None) -> None:
        check_parameters(self, {"n_neighbors": Integers(1)})
        check_choice("weights", self.weights, get_args(VoteWeights))
        check_choice("metric", self.metric, get_args(Metric))
        # With two rows per class, 20 neighbours would be rows of ten classes at least.
        self._count = min(self.n_neighbors, max(1, len(X) // len(self.classes_)))
        self._keep(X, codes, weights)
        fitted = cross_fitted_temperature(
            lambda train, scored: self._trained_on(X, codes, weights, train)._scores(X[scored]),
            codes,
            weights=weights.loss,
            groups=groups,
            n_folds=_FOLDS,
            max_rows=_MAX_HELD_OUT,
        )
        if fitted is None:
            fitted = prior_temperature(self._scores(X), codes, weights.loss)
        self.temperature_ = fitted

    def _keep(self, X: Floats, codes: Rows, weights: RowWeights) -> None:
        """Keep the training rows, their classes and the weights of their votes."""
        self.mean_ = StandardScaler(X, weights=weights.sample).mean
        self.rows_, self._codes = self._centred(X), codes
        votes = np.ones(len(codes)) if weights.loss is None else weights.loss
        self._votes = votes.astype(np.float64)
        squares = np.einsum("ij,ij->i", self.rows_, self.rows_)
        self._half_squares = squares / 2 if self.metric == "euclidean" else np.zeros_like(squares)

    def _trained_on(self, X: Floats, codes: Rows, weights: RowWeights, rows: Rows) -> KNNHead:
        """Return a head with the same parameters and classes that keeps some of the rows."""
        head = KNNHead(**self.get_params())
        head.classes_, head._count = self.classes_, self._count
        head._keep(X[rows], codes[rows], weights.take(rows))
        return head

    def _centred(self, X: Floats) -> Floats:
        """Subtract the mean; with the cosine as metric also scale rows to length 1."""
        rows = X - self.mean_
        if self.metric == "cosine":
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(length == 0, 1, length)
        return rows

    def _scores(self, X: Floats) -> NDArray[np.float64]:
        count = max(1, _SIMILARITIES_PER_BLOCK // len(self.rows_))
        blocks = [slice(start, start + count) for start in range(0, len(X), count)]
        return np.concatenate([self._log_estimates(X[block]) for block in blocks])

    def _log_estimates(self, X: Floats) -> NDArray[np.float64]:
        """Return the logarithm of the m-estimate of each class (b, k) for a block of rows."""
        neighbors, distances = self._neighbors(self._centred(X))
        votes = self._votes[neighbors]
        if self.weights == "distance":
            equal = distances <= _EQUAL
            inverse = 1 / np.maximum(distances, _EQUAL)
            votes = votes * np.where(equal.any(axis=1, keepdims=True), equal, inverse)
        sums = np.zeros((len(X), len(self.classes_)))
        np.add.at(sums, (np.arange(len(X))[:, None], self._codes[neighbors]), votes)
        fractions = sums / sums.sum(axis=1, keepdims=True)
        return np.asarray(np.log((fractions + 1 / len(self.classes_)) / 2))

    def _neighbors(self, rows: Floats) -> tuple[Rows, NDArray[np.float64]]:
        """Return the nearest training rows (b, n_neighbors), nearest first, and their distances."""
        wanted = min(self._count, len(self.rows_))
        similarities = rows @ self.rows_.T
        similarities -= self._half_squares
        candidates = np.arange(len(self.rows_))[None].repeat(len(rows), axis=0)
        if wanted + _MORE_CANDIDATES < len(self.rows_):
            last = len(self.rows_) - wanted - _MORE_CANDIDATES
            candidates = np.sort(similarities.argpartition(last, axis=1)[:, last:], axis=1)
        distances = np.empty(candidates.shape)
        count = max(1, _VALUES_PER_BLOCK // (candidates.shape[1] * rows.shape[1]))
        for start in range(0, len(rows), count):
            block = slice(start, start + count)
            distances[block] = self._distances(rows[block], candidates[block])
        order = distances.argsort(axis=1, kind="stable")[:, :wanted]
        return np.take_along_axis(candidates, order, 1), np.take_along_axis(distances, order, 1)

    def _distances(self, rows: Floats, candidates: Rows) -> NDArray[np.float64]:
        """Return the distances (b, c) to candidates in float64, the same in blocks of any size."""
        near = self.rows_[candidates].astype(np.float64)
        if self.metric == "cosine":
            cosines = np.einsum("bd,bcd->bc", rows.astype(np.float64), near)
            return np.asarray(np.maximum(1 - cosines, 0))
        near -= rows[:, None]
        return np.asarray(np.sqrt(np.einsum("bcd,bcd->bc", near, near)))

    def _steps(self) -> list[ClassifierStep]:
        raise InvalidRequest(
            "A bundle of KNNHead would hold all its training rows, which bundles do not support: "
            "bundle a logistic, svm, lightgbm or dense head instead."
        )
