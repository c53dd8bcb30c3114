"""A linear support vector machine, solved in the primal for all classes at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .base import Floats
from .blocks import MemoryLimit
from .linear import LinearHead
from .weights import ClassWeight, RowWeights


class SVMHead(LinearHead):
    """One-vs-rest linear SVM with squared hinge loss on standardised embeddings.

    Solves the primal problem of LIBLINEAR's ``L2R_L2LOSS_SVC`` (Fan et al. 2008,
    jmlr.org/papers/v9/fan08a.html) for all classes together, as a few large matrix products
    instead of one coordinate descent per class. The intercept is not penalised. The
    probabilities are a softmax of the margins with a temperature fitted on held-out rows.

    Parameters
    ----------
    C : float or "auto"
        Weight of the loss relative to the L2 penalty, as in `sklearn.svm.LinearSVC`. "auto"
        chooses it by held-out rows among 0.002 times powers of about three; with fewer than
        eight rows per class it is 0.002.
    max_iter : int
        Maximum number of iterations of the solver.
    tol : float
        Relative decrease of the objective below which the solver stops.
    calibration_folds : int
        Number of folds for fitting the temperature; 0 fits none. From 4,000 rows on, only one
        of the folds is held out.
    class_weight : {None, "balanced"} or dict
        Weight of each label, as in `sklearn.svm.LinearSVC`; "balanced" gives all classes the
        same total weight.
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
    >>> SVMHead().fit(X, X[:, 0] > 0).predict(X).shape
    (40,)
    """

    _default_strength = 0.002

    def __init__(
        self,
        C: float | Literal["auto"] = "auto",
        max_iter: int = 200,
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
        # The slack of a class is 1 - score for its own rows, and 1 + score for all others.
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
        # It is 2 where the slack is positive, which holds for few rows of most classes.
        return 1 / n_classes


def _weight_of_each(
    shape: tuple[int, ...], codes: NDArray[np.int64], weights: RowWeights
) -> Floats:
    """Return the weight of each slack (b, k), as in LIBLINEAR.

    With more than two classes, the class weight applies to a row in the problem of its own
    class; in the problems of other classes, the row has its sample weight.
    """
    assert weights.loss is not None
    rest = weights.loss if shape[1] == 2 else weights.sample
    if rest is None:
        rest = np.ones_like(weights.loss)
    each: Floats = np.repeat(rest[:, None], shape[1], axis=1)
    each[np.arange(len(codes)), codes] = weights.loss
    return each
