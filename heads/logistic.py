"""Multinomial logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from .base import Floats, Head, Standardiser, calibration_folds, fit_temperature, row_space


class LogisticHead(Head):
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

    def _fit_codes(self, X: Floats, codes: NDArray[np.int64]) -> None:
        scale = Standardiser(X)
        scaled, axes = row_space(scale(X))
        weights, intercept = self._solve(scaled, codes, start=None)
        folds = calibration_folds(codes, self.calibration_folds)
        if folds is not None:
            held_out = np.empty((len(X), len(self.classes_)), np.float32)
            for train, test in folds:
                start = (weights, intercept)
                part, bias = self._solve(scaled[train], codes[train], start)
                held_out[test] = scaled[test] @ part.T + bias
            self.temperature_ = fit_temperature(held_out, codes)
        weights = weights if axes is None else weights @ axes
        self.coef_, self.intercept_ = scale.fold(weights, intercept)

    def _solve(
        self, X: Floats, codes: NDArray[np.int64], start: tuple[Floats, Floats] | None
    ) -> tuple[Floats, Floats]:
        """Return weights (k, d) and intercept (k,), for two classes as well."""
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=self.tol, warm_start=True)
        if start is not None:
            # The problem is convex: a near start changes the time, not the place, it ends.
            model.classes_ = np.arange(len(self.classes_))
            half = slice(1, 2) if len(self.classes_) == 2 else slice(None)
            double = 2 if len(self.classes_) == 2 else 1
            model.coef_, model.intercept_ = start[0][half] * double, start[1][half] * double
        model.fit(X, codes)
        if start is None:
            self.n_iter_ = int(np.max(model.n_iter_))
        weights, intercept = model.coef_, model.intercept_
        if len(weights) == 1:  # scikit-learn keeps one row for two classes
            weights = np.vstack([-weights, weights]) / 2
            intercept = np.array([-1, 1]) * intercept / 2
        return np.asarray(weights, np.float32), np.asarray(intercept, np.float32)

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)
