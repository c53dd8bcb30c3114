"""A linear support vector machine, solved in the primal for all classes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats
from .linear import LinearHead
from .weights import RowWeights


class SVMHead(LinearHead):
    """One-against-rest linear SVM with squared hinge loss on standardised embeddings.

    The primal problem of LIBLINEAR's ``L2R_L2LOSS_SVC`` (Fan et al. 2008), but all classes
    in one search, so that the work is a few large matrix products instead of one
    coordinate descent per class. The bias is not penalised. Margins become probabilities by a
    temperature fitted on held-out rows.

    Parameters
    ----------
    C : float or "auto"
        Weight of the loss against the L2 penalty, as in `sklearn.svm.LinearSVC`. "auto"
        chooses it by held-out rows, from 0.002 on by factors of about three; with fewer than
        eight rows per class it is 0.002.
    max_iter : int
        Steps of the solver.
    tol : float
        Relative decrease of the objective at which it stops.
    calibration_folds : int
        Folds for the temperature; 0 leaves margins as they are. From 4,000 rows on, one of
        them is held out.
    class_weight : {None, "balanced"} or dict
        Weight of each label's rows; "balanced" makes all classes count the same. As in
        `sklearn.svm.LinearSVC`.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        For raw columns; the scaling is folded in.
    intercept_ : ndarray (k,), float32
    C_ : float
        The strength that was used.
    """

    _usual = 0.002

    def __init__(
        self,
        C: float | str = "auto",
        max_iter: int = 200,
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
        # The slack of class j is 1 + score for all rows but its own, whose it is 1 - score.
        scores[own] *= -1
        scores += 1
        np.maximum(scores, 0, out=scores)
        if weights.loss is None:
            loss = float(np.einsum("ij,ij->i", scores, scores).sum(dtype=np.float64))
            scores *= 2
        else:
            each = _weight_of_each(scores.shape, codes, weights)
            gradient = 2 * each * scores
            loss = 0.5 * float(np.einsum("ij,ij->i", gradient, scores).sum(dtype=np.float64))
            scores[:] = gradient
        scores[own] *= -1
        return loss

    def _curvature(self, n_classes: int) -> float:
        # 2 where the slack is positive: for most classes that is so in few rows.
        return 1 / n_classes


def _weight_of_each(
    shape: tuple[int, ...], codes: NDArray[np.int64], weights: RowWeights
) -> Floats:
    """Return the weight of each slack (b, k).

    As in LIBLINEAR: of more than two classes, the weight of a class is for its rows against
    the rest; where they are the rest of another class, they count once.
    """
    assert weights.loss is not None
    rest = weights.loss if shape[1] == 2 else weights.sample
    if rest is None:
        rest = np.ones_like(weights.loss)
    each: Floats = np.repeat(rest[:, None], shape[1], axis=1)
    each[np.arange(len(codes)), codes] = weights.loss
    return each
