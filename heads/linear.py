"""What linear heads share: scaling, the solver, and a temperature from held-out rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, lapack
from sklearn.model_selection import StratifiedKFold

from featcache import ClassifierStep

from .base import Floats, Head, Standardiser, fit_temperature, row_space
from .solver import minimise

# Times `tol`, where no weights are kept, but only a temperature or an accuracy.
_FOR_TEMPERATURE, _FOR_ACCURACY = 30, 100
# A temperature is one number: from so many rows on, one held-out fold fixes it well enough.
_MANY_ROWS = 4000


class LinearHead(Head):
    """A head whose scores are linear in the embedding, with an L2 penalty on the weights.

    Subclasses have the parameters ``C``, ``max_iter``, ``tol`` and ``calibration_folds``, and
    say what a score costs in `_loss`, which must be convex and smooth.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        For raw columns; the scaling is folded in.
    intercept_ : ndarray (k,), float32
    n_iter_ : int
        Steps that the solver took on all rows.
    """

    C: float
    max_iter: int
    tol: float
    calibration_folds: int

    @abstractmethod
    def _loss(self, scores: Floats, codes: NDArray[np.int64]) -> float:
        """Return the loss of scores (b, k), summed; turn the scores into its gradient."""

    @abstractmethod
    def _curvature(self, n_classes: int) -> float:
        """Return the second derivative of the loss in a score, on average: about."""

    def _strength(self, n_classes: int) -> float:
        """Return the weight of the loss against half the squared weights."""
        return self.C

    def _fit_codes(self, X: Floats, codes: NDArray[np.int64]) -> None:
        scale = Standardiser(X)
        order, folds = _in_folds(codes, self.calibration_folds)
        rows, axes = row_space(scale(X, order))
        codes = codes[order]
        problem = _Problem(self, rows, codes, len(self.classes_))
        # The problem is strictly convex: a near start changes the time that it takes, not
        # where it ends.
        weights: Floats | None = None
        held_out, truth = [], []
        for fold in folds:
            weights, _ = problem.solve(weights, self.tol * _FOR_TEMPERATURE, without=fold)
            held_out.append(rows[fold] @ weights[:-1] + weights[-1])
            truth.append(codes[fold])
        weights, self.n_iter_ = problem.solve(weights, self.tol)
        if folds:
            self.temperature_ = fit_temperature(np.concatenate(held_out), np.concatenate(truth))
        coefficients = weights[:-1].T
        coefficients = coefficients if axes is None else coefficients @ axes
        self.coef_, self.intercept_ = scale.fold(coefficients, weights[-1])

    def accuracy_path(
        self,
        X: Floats,
        y: NDArray[Any],
        train: NDArray[np.int64],
        test: NDArray[np.int64],
        strengths: Sequence[float],
    ) -> list[float]:
        """Return the accuracy on test rows after training with each value of ``C``.

        Scaled once, and each solution starts from the one before it.

        Parameters
        ----------
        X : ndarray (n, d)
        y : ndarray (n,)
        train, test : ndarray of int64
            Rows.
        strengths : sequence of float
            Values of ``C``, in any order.
        """
        classes, codes = np.unique(y[train], return_inverse=True)
        scale = Standardiser(X, train)
        rows, axes = row_space(scale(X, train))
        problem = _Problem(self, rows, codes.astype(np.int64), len(classes))
        others = scale(X, test)
        others = others if axes is None else others @ axes.T
        found: dict[float, float] = {}
        weights: Floats | None = None
        kept = self.C
        for self.C in sorted(strengths):
            weights, _ = problem.solve(weights, self.tol * _FOR_ACCURACY)
            scores = others @ weights[:-1] + weights[-1]
            found[self.C] = float(np.mean(classes[scores.argmax(axis=1)] == y[test]))
        self.C = kept
        return [found[value] for value in strengths]

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _steps(self) -> list[ClassifierStep]:
        return [ClassifierStep("linear", {"weights": self.coef_.T, "bias": self.intercept_})]


class _Problem:
    """The training rows and what all solutions on them share."""

    def __init__(self, head: LinearHead, rows: Floats, codes: NDArray[np.int64], k: int) -> None:
        self._head, self._rows, self._codes, self._k = head, rows, codes, k
        self._gram = rows.T @ rows
        self._known: tuple[float, tuple[Floats, Floats, np.float32]] | None = None

    def solve(
        self, start: Floats | None, tol: float, without: slice | None = None
    ) -> tuple[Floats, int]:
        """Return weights (d + 1, k), the intercept last, and the number of steps."""
        head, width = self._head, self._rows.shape[1]
        C = head._strength(self._k)
        parts = self._parts(without)
        inverse, root, unit = self._coordinates(C)

        def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
            moved = flat.reshape(width + 1, self._k)
            weights, intercept = inverse.T @ moved[:-1], moved[-1] * unit
            loss, gradient = 0.0, np.zeros_like(moved)
            for rows, codes in parts:
                scores = rows @ weights
                scores += intercept
                loss += head._loss(scores, codes)
                gradient[:-1] += (scores.T @ rows).T  # quicker than rows.T @ scores
                gradient[-1] += scores.sum(axis=0)
            gradient *= np.float32(C)
            gradient[:-1] = inverse @ (gradient[:-1] + weights)
            gradient[-1] *= unit
            penalty = 0.5 * float(np.square(weights, dtype=np.float64).sum())
            return C * loss + penalty, gradient.ravel()

        begin = np.zeros((width + 1, self._k), np.float32)
        if start is not None:
            begin[:-1], begin[-1] = root.T @ start[:-1], start[-1] / unit
        flat, steps = minimise(value_and_gradient, begin.ravel(), head.max_iter, tol)
        found = flat.reshape(width + 1, self._k)
        return np.vstack([inverse.T @ found[:-1], found[-1:] * unit]), steps

    def _parts(self, without: slice | None) -> list[tuple[Floats, NDArray[np.int64]]]:
        """Return views of the rows that count; a copy would double the memory."""
        if without is None:
            return [(self._rows, self._codes)]
        bounds = [slice(0, without.start), slice(without.stop, len(self._rows))]
        return [(self._rows[b], self._codes[b]) for b in bounds if b.stop > b.start]

    def _coordinates(self, C: float) -> tuple[Floats, Floats, np.float32]:
        """Return coordinates in which the problem is about equally steep in all directions.

        Columns of embeddings go together, so that plain descent zigzags. With L the Cholesky
        root of the penalty's and the loss' typical curvature, the search is for ``L.T W``.
        """
        if self._known is not None and self._known[0] == C:
            return self._known[1]
        typical = np.float32(C * self._head._curvature(self._k))
        curved = self._gram * typical
        curved.flat[:: len(curved) + 1] += 1
        root = cholesky(curved, lower=True, overwrite_a=True, check_finite=False)
        inverse, _ = lapack.strtri(root, lower=1)
        unit = np.float32(1 / np.sqrt(max(len(self._rows) * typical, 1e-12)))
        self._known = C, (np.ascontiguousarray(inverse), root, unit)
        return self._known[1]


def _in_folds(codes: NDArray[np.int64], folds: int) -> tuple[NDArray[np.int64], list[slice]]:
    """Order rows so that each held-out fold is a slice; none where a class has too few rows."""
    folds = min(folds, int(np.bincount(codes).min()))
    if folds < 2:
        return np.arange(len(codes)), []
    splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(codes, codes)
    parts = [test for _, test in splits]
    stops = np.cumsum([len(part) for part in parts]).tolist()
    slices = [slice(stop - len(part), stop) for part, stop in zip(parts, stops, strict=True)]
    return np.concatenate(parts), slices[:1] if len(codes) >= _MANY_ROWS else slices
