"""What linear heads share: scaling, the row space, and a temperature from held-out folds."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import ClassifierStep

from .base import Floats, Head, Standardiser, calibration_folds, fit_temperature, row_space

Weights = tuple[Floats, Floats]


class LinearHead(Head):
    """A head whose scores are linear in the embedding.

    Subclasses have the parameter ``calibration_folds`` and solve a strictly convex problem
    with an L2 penalty in `_solve`.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        For raw columns; the scaling is folded in.
    intercept_ : ndarray (k,), float32
    n_iter_ : int
        Steps that the solver took on all rows.
    """

    calibration_folds: int

    @abstractmethod
    def _solve(
        self, X: Floats, codes: NDArray[np.int64], start: Weights | None
    ) -> tuple[Floats, Floats, int]:
        """Return weights (k, d), intercept (k,) and the number of steps, from a start."""

    def _fit_codes(self, X: Floats, codes: NDArray[np.int64]) -> None:
        scale = Standardiser(X)
        scaled, axes = row_space(scale(X))
        weights, intercept, self.n_iter_ = self._solve(scaled, codes, start=None)
        folds = calibration_folds(codes, self.calibration_folds)
        if folds is not None:
            held_out = np.empty((len(X), len(self.classes_)), np.float32)
            for train, test in folds:
                # The problem is strictly convex: a near start changes the time that it
                # takes, not where it ends.
                part, bias, _ = self._solve(scaled[train], codes[train], (weights, intercept))
                held_out[test] = scaled[test] @ part.T + bias
            self.temperature_ = fit_temperature(held_out, codes)
        weights = weights if axes is None else weights @ axes
        self.coef_, self.intercept_ = scale.fold(weights, intercept)

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _steps(self) -> list[ClassifierStep]:
        return [ClassifierStep("linear", {"weights": self.coef_.T, "bias": self.intercept_})]
