"""A linear support vector machine, solved in the primal for all classes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .base import Floats, Head, Standardiser, calibration_folds, fit_temperature, row_space


class SVMHead(Head):
    """One-against-rest linear SVM with squared hinge loss on standardised embeddings.

    The primal problem of LIBLINEAR's ``L2R_L2LOSS_SVC`` (Fan et al. 2008), but all classes
    in one L-BFGS run, so that the work is a few large matrix products instead of one
    coordinate descent a class. The bias is not penalised. Margins become probabilities by a
    temperature fitted on held-out folds.

    Parameters
    ----------
    C : float
        Weight of the loss against the L2 penalty, as in `sklearn.svm.LinearSVC`.
    max_iter : int
        Steps of the solver.
    tol : float
        Relative decrease of the objective at which it stops.
    calibration_folds : int
        Folds for the temperature; 0 leaves margins as they are.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        For raw columns; the scaling is folded in.
    intercept_ : ndarray (k,), float32
    """

    def __init__(
        self, C: float = 0.002, max_iter: int = 200, tol: float = 1e-5, calibration_folds: int = 3
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.calibration_folds = calibration_folds

    def _fit_codes(self, X: Floats, codes: NDArray[np.int64]) -> None:
        scale = Standardiser(X)
        scaled, axes = row_space(scale(X))
        count = len(self.classes_)
        weights = self._solve(scaled, codes, count, start=None)
        folds = calibration_folds(codes, self.calibration_folds)
        if folds is not None:
            held_out = np.empty((len(X), count), np.float32)
            for train, test in folds:
                # The problem is strictly convex: starting from the whole solution changes
                # the time it takes, not where it ends.
                part = self._solve(scaled[train], codes[train], count, start=weights)
                held_out[test] = scaled[test] @ part[:-1] + part[-1]
            self.temperature_ = fit_temperature(held_out, codes)
        coefficients = weights[:-1].T if axes is None else weights[:-1].T @ axes
        self.coef_, self.intercept_ = scale.fold(coefficients, weights[-1])

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _solve(
        self, X: Floats, codes: NDArray[np.int64], count: int, start: Floats | None
    ) -> Floats:
        """Return weights (d + 1, k), the bias in the last row."""
        rows, width = X.shape
        signs = -np.ones((rows, count), np.float32)
        signs[np.arange(rows), codes] = 1

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = flat.reshape(width + 1, count).astype(np.float32)
            slack = X @ weights[:-1]
            slack += weights[-1]
            slack *= signs
            np.subtract(1, slack, out=slack)
            np.maximum(slack, 0, out=slack)
            penalty = 0.5 * float(np.sum(np.square(weights[:-1], dtype=np.float64)))
            loss = self.C * float(np.sum(np.square(slack, dtype=np.float64)))
            slack *= signs
            gradient = np.empty_like(weights)
            np.matmul(X.T, slack, out=gradient[:-1])
            gradient[-1] = slack.sum(axis=0)
            gradient *= -2 * self.C
            gradient[:-1] += weights[:-1]
            return penalty + loss, gradient.ravel().astype(np.float64)

        zero = np.zeros((width + 1, count)) if start is None else start
        found = minimize(
            objective,
            np.asarray(zero, np.float64).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "ftol": self.tol, "gtol": 1e-6, "maxcor": 10},
        )
        if start is None:
            self.n_iter_ = int(found.nit)
        return np.asarray(found.x.reshape(width + 1, count), np.float32)
