"""A linear support vector machine, solved in the primal for all classes at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .base import Floats
from .linear import LinearHead, Weights


class SVMHead(LinearHead):
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

    def _solve(
        self, X: Floats, codes: NDArray[np.int64], start: Weights | None
    ) -> tuple[Floats, Floats, int]:
        rows, width = X.shape
        count = len(self.classes_)
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

        begin = np.zeros((width + 1, count))  # the bias is the last row
        if start is not None:
            begin[:-1], begin[-1] = start[0].T, start[1]
        found = minimize(
            objective,
            begin.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "ftol": self.tol, "gtol": 1e-6, "maxcor": 10},
        )
        weights = found.x.reshape(width + 1, count).astype(np.float32)
        return weights[:-1].T, weights[-1], int(found.nit)
