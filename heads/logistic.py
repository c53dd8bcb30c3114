"""Multinomial logistic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from .base import Floats
from .linear import LinearHead, Weights


class LogisticHead(LinearHead):
    """Multinomial logistic regression on standardised embeddings (scikit-learn, L-BFGS).

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty. Embeddings have many columns and few rows a
        class, so the default is far below scikit-learn's 1.
    max_iter : int
        Steps of the solver.
    tol : float
        Largest gradient at which it stops.
    calibration_folds : int
        Folds for the temperature, since so strong a penalty makes probabilities too
        modest; 0 leaves them as they are.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        For raw columns; the scaling is folded in.
    intercept_ : ndarray (k,), float32

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    >>> head = LogisticHead().fit(X, X[:, 0] > 0)
    >>> head.predict_proba(X).shape
    (40, 2)
    """

    def __init__(
        self, C: float = 0.01, max_iter: int = 300, tol: float = 1e-4, calibration_folds: int = 3
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.calibration_folds = calibration_folds

    def _solve(
        self, X: Floats, codes: NDArray[np.int64], start: Weights | None
    ) -> tuple[Floats, Floats, int]:
        two = len(self.classes_) == 2  # of which scikit-learn keeps one row
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=self.tol, warm_start=True)
        if start is not None:
            kept, factor = (slice(1, 2), 2) if two else (slice(None), 1)
            model.classes_ = np.arange(len(self.classes_))
            model.coef_, model.intercept_ = start[0][kept] * factor, start[1][kept] * factor
        model.fit(X, codes)
        weights, intercept = model.coef_, model.intercept_
        if two:
            weights = np.vstack([-weights, weights]) / 2
            intercept = np.array([-1, 1]) * intercept / 2
        steps = int(np.max(model.n_iter_))
        return np.asarray(weights, np.float32), np.asarray(intercept, np.float32), steps
