"""Base class of heads with linear scores, which train in memory or, beyond it, in blocks."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from featcache import ClassifierStep

from .arguments import as_features, check_lengths, labelled_rows
from .base import Floats, Head
from .blocks import MemoryLimit, RowBlocks, exceeds, limit_bytes
from .groups import Codes, needed_groups
from .weights import row_weights, spread

if TYPE_CHECKING:
    from featcache import Features

LinearT = TypeVar("LinearT", bound="LinearScoresHead")


class LinearScoresHead(Head):
    """Base class of heads with linear scores.

    Subclasses have the parameter ``memory_limit``, and define training in memory (`_fit_codes`)
    and in blocks (`_fit_blocks`), and the checks of their parameters.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        Weights for unscaled embeddings.
    intercept_ : ndarray (k,), float32
    """

    memory_limit: MemoryLimit
    coef_: Floats
    intercept_: Floats

    def fit(
        self: LinearT,
        X: Features | ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> LinearT:
        """Train on embeddings; see `Head.fit`.

        Rows of features or of a `numpy.memmap` that do not fit in `memory_limit` are read in
        blocks. The temperature is then fitted on 10,000 rows or a tenth of all, and equal rows are
        not merged. Logistic regression and SVM read all rows once per iteration, choose
        ``C="auto"`` on a sample of them, and do not train on the rows of the temperature; ridge
        regression reads them once.
        """
        limit = limit_bytes(self.memory_limit)
        features = as_features(X)
        if not exceeds(X if features is None else features.X, limit):
            super().fit(X, y, sample_weight, groups)
            return self
        self._check_parameters()
        self._fit_blocks(*self._labelled_blocks(X, y, sample_weight, groups, limit))
        return self

    @property
    def n_parameters(self) -> int:
        """Number of coefficients and intercepts."""
        check_is_fitted(self, "coef_")
        return int(self.coef_.size + self.intercept_.size)

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise `InvalidRequest` if a parameter is out of range."""

    @abstractmethod
    def _fit_blocks(self, blocks: RowBlocks, groups: Codes | None) -> None:
        """Train on blocks of rows, with the number of each row's group."""

    def _labelled_blocks(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, limit: int
    ) -> tuple[RowBlocks, Codes | None]:
        """Return rows on disk as blocks, with the number of each row's group; set `classes_`."""
        features = as_features(X)
        self._feature_classes = None
        if features is not None:
            self._feature_classes = features.classes if y is None else None
            y = features.y if y is None else y
            groups = features.ids if groups is None else groups
            X = features.X
        positions = np.arange(len(X))[:, None]
        used, y, sample_weight, numbers = labelled_rows(
            type(self).__name__, positions, y, sample_weight, groups
        )
        check_lengths(used, y)
        kept, codes, sample = self._encode(np.asarray(column_or_1d(y)), sample_weight)
        self.n_features_in_ = int(X.shape[1])
        rows = used[kept, 0]
        weights = row_weights(self.class_weight, self.classes_, codes, sample)
        numbers = None if numbers is None else needed_groups(numbers[kept])
        every = np.full(len(X), -1, np.int64)
        every[rows] = codes
        return (
            RowBlocks(X, every, weights.spread(rows, len(X)), limit),
            None if numbers is None else spread(numbers, rows, len(X)),
        )

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _steps(self) -> list[ClassifierStep]:
        return [ClassifierStep("linear", {"weights": self.coef_.T, "bias": self.intercept_})]
