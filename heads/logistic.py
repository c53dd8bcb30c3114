"""Multinomial logistic regression."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .base import Floats
from .blocks import MemoryLimit
from .linear import LinearHead
from .weights import ClassWeight, RowWeights


class LogisticHead(LinearHead):
    """Multinomial logistic regression on standardised embeddings.

    Solves the problem of `sklearn.linear_model.LogisticRegression`, with the same ``C``, in
    float32 by preconditioned L-BFGS. The temperature corrects the low confidence that a strong
    penalty causes.

    Parameters
    ----------
    C : float or "auto"
        Inverse strength of the L2 penalty, as in scikit-learn. "auto" chooses it by held-out
        rows among 0.01 times powers of about three; with fewer than eight rows per class it
        is 0.01. Good values are far below the 1 of scikit-learn, since embeddings have many
        columns and few rows per class.
    max_iter : int
        Maximum number of iterations of the solver.
    tol : float
        Relative decrease of the objective below which the solver stops.
    calibration_folds : int
        Number of folds for fitting the temperature; 0 fits none. From 4,000 rows on, only one
        of the folds is held out.
    class_weight : {None, "balanced"} or dict
        Weight of each label; "balanced" gives all classes the same total weight.
    memory_limit : int or str, optional
        Bytes, or a text such as "2G", that training on rows of a store or of a `numpy.memmap` may
        take; if all of them take more, they are read in blocks. Default: half the free memory.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        Weights for unscaled embeddings.
    intercept_ : ndarray (k,), float32
    C_ : float
        The value of C that was used.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    >>> head = LogisticHead().fit(X, X[:, 0] > 0)
    >>> head.predict_proba(X).shape
    (40, 2)
    """

    _default_strength = 0.01

    def __init__(
        self,
        C: float | Literal["auto"] = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        calibration_folds: int = 3,
        class_weight: ClassWeight = None,
        memory_limit: MemoryLimit = None,
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.calibration_folds = calibration_folds
        self.class_weight = class_weight
        self.memory_limit = memory_limit

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
        # p (1 - p) at the end of training, where most probabilities are near 0 or 1.
        return 0.2 / n_classes

    def _loss_weight(self, C: float, n_classes: int) -> float:
        # With two classes, scikit-learn penalises the difference of their weights, not both.
        return C / 2 if n_classes == 2 else C
