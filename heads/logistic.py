"""Multinomial logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats
from .linear import LinearHead
from .weights import RowWeights


class LogisticHead(LinearHead):
    """Multinomial logistic regression on standardised embeddings.

    The problem that `sklearn.linear_model.LogisticRegression` solves, with the same ``C``,
    in float32 and in coordinates that suit correlated columns.

    Parameters
    ----------
    C : float or "auto"
        Inverse strength of the L2 penalty, as in scikit-learn. "auto" chooses it by held-out
        rows, from 0.01 on by factors of about three; with fewer than eight rows per class it
        is 0.01. Embeddings have many columns and few rows per class, so that good values are
        far below scikit-learn's 1.
    max_iter : int
        Steps of the solver.
    tol : float
        Relative decrease of the objective at which it stops.
    calibration_folds : int
        Folds for the temperature, since so strong a penalty makes probabilities not
        confident enough; 0 leaves them as they are. From 4,000 rows on, one of them is held out.
    class_weight : {None, "balanced"} or dict
        Weight of each label's rows; "balanced" makes all classes count the same.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        For raw columns; the scaling is folded in.
    intercept_ : ndarray (k,), float32
    C_ : float
        The strength that was used.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    >>> head = LogisticHead().fit(X, X[:, 0] > 0)
    >>> head.predict_proba(X).shape
    (40, 2)
    """

    _usual = 0.01

    def __init__(
        self,
        C: float | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        calibration_folds: int = 3,
        class_weight: Any = None,
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.calibration_folds = calibration_folds
        self.class_weight = class_weight

    def _loss(self, scores: Floats, codes: NDArray[np.int64], weights: RowWeights) -> float:
        own = (np.arange(len(codes)), codes)
        scores -= scores.max(axis=1, keepdims=True)
        right = scores[own].astype(np.float64)
        np.exp(scores, out=scores)
        sums = scores.sum(axis=1, keepdims=True)
        scores /= sums
        scores[own] -= 1
        losses = np.log(sums[:, 0], dtype=np.float64) - right
        if weights.loss is None:
            return float(losses.sum())
        scores *= weights.loss[:, None]
        return float(weights.loss @ losses)

    def _curvature(self, n_classes: int) -> float:
        # p (1 - p) at the end of training, where most rows are nearly certain.
        return 0.2 / n_classes

    def _loss_weight(self, C: float, n_classes: int) -> float:
        # scikit-learn penalises the difference of two classes' weights, not both.
        return C / 2 if n_classes == 2 else C
