"""Base class of heads with linear scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from featcache import ClassifierStep

from .base import Floats
from .block_head import BlockHead


class LinearScoresHead(BlockHead):
    """Base class of heads with linear scores.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        Weights for unscaled embeddings.
    intercept_ : ndarray (k,), float32
    """

    coef_: Floats
    intercept_: Floats

    @property
    def n_parameters(self) -> int:
        """Number of coefficients and intercepts."""
        check_is_fitted(self, "coef_")
        return int(self.coef_.size + self.intercept_.size)

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _steps(self) -> list[ClassifierStep]:
        return [ClassifierStep("linear", {"weights": self.coef_.T, "bias": self.intercept_})]
