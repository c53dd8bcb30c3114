"""Base class of the linear heads: scaling, the solver, the choice of C and the temperature."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs
from sklearn.utils.validation import check_is_fitted

from featcache import ClassifierStep
from featcache.errors import InvalidRequest

from .base import Floats, Head, StandardScaler, row_space
from .calibration import prior_temperature
from .groups import Codes, count_groups
from .held_out import held_out_folds
from .parameters import Integers, Interval, check_parameters
from .solver import Memory, minimise, new_memory
from .strength import HeldOutScores, choose_strength
from .weights import RowWeights

_cholesky, _invert = get_lapack_funcs(("potrf", "trtri"), dtype=np.float32)
# Factor of `tol` for models that are discarded once they have given a temperature.
_TEMPERATURE_TOL = 30
_CHOICE_FOLDS = 3
# With fewer rows, held-out rows determine the best C less well than the default does.
_MIN_ROWS_PER_CLASS = 8
# A temperature is a single parameter: with this many rows, one held-out fold determines it.
_ONE_FOLD_ROWS = 4000
_ROWS_PER_CHUNK = 4096
_MAX_SCORES = 10_000_000  # held out for a temperature
_MIN_C, _MAX_C = 1e-12, 1e12  # beyond them float32 loses the loss or the penalty

_PARAMETERS: dict[str, Integers | Interval] = {
    "max_iter": Integers(1),
    "tol": Interval(0, closed_low=True),
    "calibration_folds": Integers(0),
}


class LinearHead(Head):
    """Base class of heads with linear scores and an L2 penalty on the weights.

    Subclasses have the parameters ``C``, ``max_iter``, ``tol`` and ``calibration_folds``, and
    define the loss of the scores in `_loss`, which must be convex and smooth.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        Weights for unscaled embeddings.
    intercept_ : ndarray (k,), float32
    n_iter_ : int
        Number of iterations of the solver on all rows.
    C_ : float
        The value of C that was used.
    """

    # The value of "auto" if there are few rows, and the first one that it tries if there are more.
    _default_strength: ClassVar[float]

    C: float | Literal["auto"]
    max_iter: int
    tol: float
    calibration_folds: int

    @abstractmethod
    def _loss(self, scores: Floats, codes: NDArray[np.int64], weights: RowWeights) -> float:
        """Return the weighted sum of the losses of scores (b, k); its gradient replaces them."""

    @abstractmethod
    def _curvature(self, n_classes: int) -> float:
        """Return the approximate mean second derivative of the loss with respect to a score."""

    def _loss_weight(self, C: float, n_classes: int) -> float:
        """Return the weight of the loss, relative to half the sum of squared coefficients."""
        return C

    @property
    def n_parameters(self) -> int:
        """Number of coefficients and intercepts."""
        check_is_fitted(self, "coef_")
        return int(self.coef_.size + self.intercept_.size)

    def _fit_codes(
        self, X: Floats, codes: NDArray[np.int64], weights: RowWeights, groups: Codes | None
    ) -> None:
        check_parameters(self, _PARAMETERS)
        is_auto = isinstance(self.C, str) and self.C == "auto"
        if not is_auto:
            _check_strength(self.C)
        n_different = count_groups(groups, np.arange(len(codes)))
        choose = is_auto and n_different >= _MIN_ROWS_PER_CLASS * len(self.classes_)
        scale = StandardScaler(X, weights=weights.sample)
        n_folds = self.calibration_folds or (_CHOICE_FOLDS if choose else 0)
        order, folds = _order_by_fold(codes, n_folds, groups)
        folds = folds[:1] if n_different >= _ONE_FOLD_ROWS else folds
        rows, axes = row_space(scale(X, order))
        codes, weights = codes[order], weights.take(order)
        groups = None if groups is None else groups[order]
        problem = _Problem(self, rows, codes, len(self.classes_), weights, groups)
        held_out: HeldOutScores | None
        found: Floats | None
        if choose and folds:
            self.C_, held_out, found = choose_strength(
                problem, folds, self._default_strength, self.tol
            )
        else:
            self.C_ = self._default_strength if is_auto else float(self.C)
            held_out, found = _held_out_scores(problem, folds, self.C_, self.tol)
        found, self.n_iter_ = problem.solve(self.C_, found, self.tol)
        if held_out is not None and self.calibration_folds:
            self.temperature_ = held_out.temperature()
        elif self.calibration_folds:
            scores = rows @ found[:-1] + found[-1]
            self.temperature_ = prior_temperature(scores, codes, weights.loss)
        coefficients = found[:-1].T
        coefficients = coefficients if axes is None else coefficients @ axes
        self.coef_, self.intercept_ = scale.fold(coefficients, found[-1])

    def accuracy_paths(
        self,
        X: Floats,
        y: NDArray[Any],
        folds: Sequence[NDArray[np.int64]],
        strengths: Sequence[float],
    ) -> NDArray[np.float64]:
        """Return the cross-validated accuracy of each fold for several values of ``C``.

        The folds share the scaled matrix, its rotation and the preconditioner, none of which
        depends on the labels. Each solution starts from that of the same fold at the previous
        ``C``.

        Parameters
        ----------
        X : ndarray (n, d), float32
        y : ndarray (n,)
            Labels.
        folds : sequence of ndarray of int64
            Test rows of each fold, disjoint. Rows of no fold are always trained on.
        strengths : sequence of float
            Values of ``C``, in any order.

        Returns
        -------
        ndarray (len(strengths), len(folds)), float64
            Between 0 and 1.

        Raises
        ------
        InvalidRequest
            If a parameter of the head is out of range, or a value of ``C`` is not a positive
            number that float32 can represent.
        """
        check_parameters(self, _PARAMETERS)
        for strength in strengths:
            _check_strength(strength)
        classes, codes = np.unique(y, return_inverse=True)
        rest = np.setdiff1d(np.arange(len(codes)), np.concatenate(folds))
        order = np.concatenate([*folds, rest])
        rows, _ = row_space(StandardScaler(X)(X, order))
        problem = _Problem(self, rows, codes.astype(np.int64)[order], len(classes))
        slices = _slices(folds)
        weights: list[Floats | None] = [None] * len(folds)
        found = np.empty((len(strengths), len(folds)))
        for place in np.argsort(strengths):
            C = float(strengths[place])
            moved: Floats | None = None
            for number, fold in enumerate(slices):
                start = weights[number]
                if moved is not None:
                    start = moved if start is None else start + moved
                solved, _ = problem.solve(C, start, self.tol, without=fold)
                predictions = (rows[fold] @ solved[:-1] + solved[-1]).argmax(axis=1)
                found[place, number] = np.mean(predictions == problem.codes[fold])
                if moved is None:
                    moved = solved if weights[0] is None else solved - weights[0]
                weights[number] = solved
        return found

    def _scores(self, X: Floats) -> NDArray[Any]:
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _steps(self) -> list[ClassifierStep]:
        return [ClassifierStep("linear", {"weights": self.coef_.T, "bias": self.intercept_})]


class _Problem:
    """The optimisation problem of a linear head, and what its solutions for all C share."""

    def __init__(
        self,
        head: LinearHead,
        rows: Floats,
        codes: NDArray[np.int64],
        k: int,
        weights: RowWeights | None = None,
        groups: Codes | None = None,
    ) -> None:
        self._groups = groups
        self._head, self._rows, self.codes, self._k = head, rows, codes, k
        self._weights = RowWeights() if weights is None else weights
        loss = self._weights.loss
        self._gram = _gram(rows, loss)
        self._total = len(rows) if loss is None else float(loss.sum(dtype=np.float64))
        self._cached: tuple[float, tuple[Floats, np.float32]] | None = None

    def solve(
        self,
        C: float,
        start: Floats | None,
        tol: float,
        without: slice | None = None,
        memory: Memory | None = None,
    ) -> tuple[Floats, int]:
        """Return the coefficients (d + 1, k), intercept last, and the number of iterations."""
        head, width = self._head, self._rows.shape[1]
        C = head._loss_weight(C, self._k)
        parts = self._parts(without)
        inverse, unit = self._preconditioner(C)

        def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
            moved = flat.reshape(width + 1, self._k)
            weights, intercept = inverse.T @ moved[:-1], moved[-1] * unit
            loss, gradient = 0.0, np.zeros_like(moved)
            for rows, codes, row_weights in parts:
                scores = rows @ weights
                scores += intercept
                loss += head._loss(scores, codes, row_weights)
                gradient[:-1] += (scores.T @ rows).T  # faster than rows.T @ scores
                gradient[-1] += scores.sum(axis=0)
            gradient *= np.float32(C)
            gradient[:-1] = inverse @ (gradient[:-1] + weights)
            gradient[-1] *= unit
            penalty = 0.5 * float(np.square(weights, dtype=np.float64).sum())
            return C * loss + penalty, gradient.ravel()

        begin = np.zeros((width + 1, self._k), np.float32)
        if start is not None:
            # root.T, which is not kept, is inverse @ root @ root.T
            curved = start[:-1] + self._typical(C) * (self._gram @ start[:-1])
            begin[:-1], begin[-1] = inverse @ curved, start[-1] / unit
        memory = self._memory if memory is None else memory
        flat, steps = minimise(value_and_gradient, begin.ravel(), head.max_iter, tol, memory)
        found = flat.reshape(width + 1, self._k)
        return np.vstack([inverse.T @ found[:-1], found[-1:] * unit]), steps

    def scores(self, coefficients: Floats, fold: slice) -> Floats:
        """Return the scores of a fold's rows; with many classes, of a sample of them."""
        sample = self._sample(fold)
        return np.asarray(self._rows[sample] @ coefficients[:-1] + coefficients[-1])

    def scored(self, folds: Sequence[slice], scores: Sequence[Floats]) -> HeldOutScores:
        """Join the scores of all folds to the codes, weights and groups of their rows."""
        rows = np.concatenate([np.arange(len(self._rows))[self._sample(fold)] for fold in folds])
        groups = None if self._groups is None else self._groups[rows]
        weights = self._weights.take(rows).loss
        return HeldOutScores(np.concatenate(scores), self.codes[rows], weights, groups)

    def _sample(self, fold: slice) -> slice:
        # Bounds the memory of the scores; a sample of the rows determines the temperature.
        return slice(fold.start, fold.stop, -(-_rows_of(fold) * self._k // _MAX_SCORES))

    def _parts(self, without: slice | None) -> list[tuple[Floats, NDArray[np.int64], RowWeights]]:
        """Return views of the training rows, their codes and weights, in chunks.

        Views, since a copy would double the memory. In chunks, so that the scores are still in
        the processor's cache when the gradient is computed from them.
        """
        count = len(self._rows)
        runs = [(0, count)] if without is None else [(0, without.start), (without.stop, count)]
        parts = [
            slice(start, min(start + _ROWS_PER_CHUNK, stop))
            for first, stop in runs
            for start in range(first, stop, _ROWS_PER_CHUNK)
        ]
        return [(self._rows[part], self.codes[part], self._weights.take(part)) for part in parts]

    def _typical(self, C: float) -> np.float32:
        typical: np.float32 = np.float32(C * self._head._curvature(self._k))
        return typical

    def _preconditioner(self, C: float) -> tuple[Floats, np.float32]:
        """Return a preconditioner: coordinates in which the curvature is about the same everywhere.

        Columns of embeddings are correlated, which makes plain descent slow. With L the Cholesky
        factor of the typical Hessian of loss and penalty, the variables are ``L.T W``. Returns
        the inverse of L, and the corresponding factor of the intercept.
        """
        if self._cached is not None and self._cached[0] == C:
            return self._cached[1]
        self._cached = None  # freed first: a few such matrices are as large as the rows
        typical = self._typical(C)
        curved = self._gram * typical
        curved.flat[:: len(curved) + 1] += 1
        # In place: the transpose of a symmetric matrix has the column order that LAPACK needs.
        root, _ = _cholesky(curved.T, lower=1, overwrite_a=1)
        inverse, _ = _invert(root, lower=1, overwrite_c=1)
        unit = np.float32(1 / np.sqrt(max(self._total * typical, 1e-12)))
        self._cached = C, (inverse, unit)
        self._memory = new_memory()
        return self._cached[1]


def _held_out_scores(
    problem: _Problem, folds: Sequence[slice], C: float, tol: float
) -> tuple[HeldOutScores | None, Floats | None]:
    """Return scores of the held-out rows for one C, and coefficients to start from."""
    # The problem is strictly convex: the start changes the number of iterations, not the result.
    found: Floats | None = None
    scores = []
    for fold in folds:
        found, _ = problem.solve(C, found, tol * _TEMPERATURE_TOL, without=fold)
        scores.append(problem.scores(found, fold))
    return problem.scored(folds, scores) if folds else None, found


def _check_strength(C: Any) -> None:
    """Raise `InvalidRequest` unless C is a number in the range of the solver."""
    if isinstance(C, bool) or not isinstance(C, Real) or not _MIN_C <= float(C) <= _MAX_C:
        raise InvalidRequest(
            f"C={C!r} must be 'auto' or a number from {_MIN_C:g} to {_MAX_C:g}, larger for weaker "
            "regularisation.",
            received=C,
        )


def _gram(rows: Floats, weights: Floats | None) -> Floats:
    """Return the Gram matrix (d, d) of the columns, with weighted rows if there are weights."""
    if weights is None:
        return np.asarray(rows.T @ rows)
    gram: Floats = np.zeros((rows.shape[1], rows.shape[1]), np.float32)
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        part = slice(start, start + _ROWS_PER_CHUNK)
        gram += (rows[part] * weights[part, None]).T @ rows[part]
    return gram


def _rows_of(part: slice) -> int:
    return int(part.stop - part.start)


def _order_by_fold(
    codes: NDArray[np.int64], folds: int, groups: Codes | None
) -> tuple[NDArray[np.int64], list[slice]]:
    """Return an order of the rows in which each held-out fold is a slice, and these slices."""
    parts = held_out_folds(codes, folds, groups=groups)
    if not parts:
        return np.arange(len(codes)), []
    rest = np.setdiff1d(np.arange(len(codes)), np.concatenate(parts))
    return np.concatenate([*parts, rest]), _slices(parts)


def _slices(parts: Sequence[NDArray[np.int64]]) -> list[slice]:
    """Return the slice of each part in the concatenation of all."""
    stops = np.cumsum([len(part) for part in parts]).tolist()
    return [slice(stop - len(part), stop) for part, stop in zip(parts, stops, strict=True)]
