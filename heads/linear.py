"""What linear heads share: scaling, the solver, and a temperature from held-out rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from sklearn.utils.validation import check_is_fitted

from featcache import ClassifierStep
from featcache.errors import InvalidRequest

from .base import Floats, Head, StandardScaler, row_space
from .calibration import fit_temperature, held_out_folds, log_losses, prior_temperature
from .solver import Memory, minimise, new_memory
from .weights import RowWeights

# Times `tol`, where no weights are kept, but only a temperature.
_FOR_TEMPERATURE = 30
_TO_CHOOSE = 10
# Strengths that "auto" tries: the usual one times powers of this factor.
_FACTOR = 10**0.5
_MOST_STEPS = 3
_LOG_LOSS = 0.25  # beside an error rate
_STANDARD_ERRORS = 2.0  # by which another strength must be better than the usual one
_FOLDS_TO_CHOOSE = 3
# With fewer, held-out rows say less of the best strength than experience with other data does.
_ROWS_PER_CLASS_TO_CHOOSE = 8
# A temperature is one number: from this number of rows on, one held-out fold fixes it well enough.
_MANY_ROWS = 4000
_PART = 4096  # rows
_MOST_SCORES = 10_000_000  # held out for a temperature
_LEAST_C, _MOST_C = 1e-12, 1e12  # beyond them float32 cannot tell the loss from the penalty


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
    C_ : float
        The strength that was used.
    """

    # Used by "auto" where there are too few rows to choose by, and first where there are.
    _usual: ClassVar[float]

    C: float | str
    max_iter: int
    tol: float
    calibration_folds: int

    @abstractmethod
    def _loss(self, scores: Floats, codes: NDArray[np.int64], weights: RowWeights) -> float:
        """Return the weighted sum of losses of scores (b, k), and make them its gradient."""

    @abstractmethod
    def _curvature(self, n_classes: int) -> float:
        """Return the second derivative of the loss in a score, on average: about."""

    def _loss_weight(self, C: float, n_classes: int) -> float:
        """Return the weight of the loss against half the squared coefficients."""
        return C

    @property
    def n_parameters(self) -> int:
        """Number of coefficients and intercepts."""
        check_is_fitted(self, "coef_")
        return int(self.coef_.size + self.intercept_.size)

    def _fit_codes(self, X: Floats, codes: NDArray[np.int64], weights: RowWeights) -> None:
        is_auto = isinstance(self.C, str) and self.C == "auto"
        if not is_auto:
            _check_strength(self.C)
        choose = is_auto and len(codes) >= _ROWS_PER_CLASS_TO_CHOOSE * len(self.classes_)
        scale = StandardScaler(X, weights=weights.sample)
        folds_wanted = self.calibration_folds or (_FOLDS_TO_CHOOSE if choose else 0)
        order, folds = _in_folds(codes, folds_wanted)
        rows, axes = row_space(scale(X, order))
        codes, weights = codes[order], weights.take(order)
        problem = _Problem(self, rows, codes, len(self.classes_), weights)
        held_out: _Scored | None
        found: Floats | None
        if choose and folds:
            self.C_, held_out, found = _choose(problem, folds, self._usual, self.tol)
        else:
            self.C_ = self._usual if is_auto else float(self.C)
            held_out, found = _held_out_scores(problem, folds, self.C_, self.tol)
        found, self.n_iter_ = problem.solve(self.C_, found, self.tol)
        if held_out is not None and self.calibration_folds:
            self.temperature_ = fit_temperature(*held_out)
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
        """Return the accuracy on each fold, of training on all others, with each ``C``.

        All folds share one scaled matrix, one rotation and one set of coordinates, none of
        which looks at a label; each solution starts from the same fold's at the ``C`` before.

        Parameters
        ----------
        X : ndarray (n, d)
        y : ndarray (n,)
        folds : sequence of ndarray of int64
            Rows of each fold, none of them in two; rows of no fold are always trained on.
        strengths : sequence of float
            Values of ``C``, in any order.

        Returns
        -------
        ndarray (len(strengths), len(folds)), float64
        """
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
    """The training rows and what all solutions on them share."""

    def __init__(
        self,
        head: LinearHead,
        rows: Floats,
        codes: NDArray[np.int64],
        k: int,
        weights: RowWeights | None = None,
    ) -> None:
        self._head, self._rows, self.codes, self._k = head, rows, codes, k
        self._weights = RowWeights() if weights is None else weights
        loss = self._weights.loss
        self._gram = _gram(rows, loss)
        self._total = len(rows) if loss is None else float(loss.sum(dtype=np.float64))
        self._known: tuple[float, tuple[Floats, np.float32]] | None = None

    def solve(
        self,
        C: float,
        start: Floats | None,
        tol: float,
        without: slice | None = None,
        memory: Memory | None = None,
    ) -> tuple[Floats, int]:
        """Return coefficients (d + 1, k), the intercept last, and the number of steps."""
        head, width = self._head, self._rows.shape[1]
        C = head._loss_weight(C, self._k)
        parts = self._parts(without)
        inverse, unit = self._coordinates(C)

        def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
            moved = flat.reshape(width + 1, self._k)
            weights, intercept = inverse.T @ moved[:-1], moved[-1] * unit
            loss, gradient = 0.0, np.zeros_like(moved)
            for rows, codes, row_weights in parts:
                scores = rows @ weights
                scores += intercept
                loss += head._loss(scores, codes, row_weights)
                gradient[:-1] += (scores.T @ rows).T  # quicker than rows.T @ scores
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
        """Return the scores of a fold's rows; of many classes, those of some of the rows."""
        some = self._some(fold)
        return np.asarray(self._rows[some] @ coefficients[:-1] + coefficients[-1])

    def scored(self, folds: Sequence[slice], scores: Sequence[Floats]) -> _Scored:
        """Join the scores of all folds with the codes and weights of their rows."""
        rows = np.concatenate([np.arange(len(self._rows))[self._some(fold)] for fold in folds])
        return _Scored(np.concatenate(scores), self.codes[rows], self._weights.take(rows).loss)

    def _some(self, fold: slice) -> slice:
        # A temperature is one number: of many classes, some of the rows fix it.
        return slice(fold.start, fold.stop, -(-_rows_of(fold) * self._k // _MOST_SCORES))

    def _parts(self, without: slice | None) -> list[tuple[Floats, NDArray[np.int64], RowWeights]]:
        """Return views of the rows that count: a copy would double the memory.

        A part at a time, so that its scores are still in the processor's cache when the
        gradient is made of them.
        """
        count = len(self._rows)
        runs = [(0, count)] if without is None else [(0, without.start), (without.stop, count)]
        parts = [
            slice(start, min(start + _PART, stop))
            for first, stop in runs
            for start in range(first, stop, _PART)
        ]
        return [(self._rows[part], self.codes[part], self._weights.take(part)) for part in parts]

    def _typical(self, C: float) -> np.float32:
        typical: np.float32 = np.float32(C * self._head._curvature(self._k))
        return typical

    def _coordinates(self, C: float) -> tuple[Floats, np.float32]:
        """Return coordinates in which the problem is about equally steep in all directions.

        Columns of embeddings go together, so that plain descent zigzags. With L the Cholesky
        root of the penalty's and the loss' typical curvature, the search is for ``L.T W``.
        Returns the inverse of L, and the same for the intercept.
        """
        if self._known is not None and self._known[0] == C:
            return self._known[1]
        self._known = None  # a few of such squares are as large as the rows
        typical = self._typical(C)
        curved = self._gram * typical
        curved.flat[:: len(curved) + 1] += 1
        # In place: the transpose of a symmetric matrix is in the order that LAPACK wants.
        root, _ = lapack.spotrf(curved.T, lower=1, overwrite_a=1)
        inverse, _ = lapack.strtri(root, lower=1, overwrite_c=1)
        unit = np.float32(1 / np.sqrt(max(self._total * typical, 1e-12)))
        self._known = C, (inverse, unit)
        self._memory = new_memory()
        return self._known[1]


class _Scored(NamedTuple):
    """Scores of held-out rows, by models trained without them; their codes and weights."""

    scores: Floats
    codes: NDArray[np.int64]
    weights: Floats | None


def _held_out_scores(
    problem: _Problem, folds: Sequence[slice], C: float, tol: float
) -> tuple[_Scored | None, Floats | None]:
    """Return scores of held-out rows with one strength, and coefficients to start from."""
    # The problem is strictly convex: a near start changes the time that it takes, not where
    # it ends.
    found: Floats | None = None
    scores = []
    for fold in folds:
        found, _ = problem.solve(C, found, tol * _FOR_TEMPERATURE, without=fold)
        scores.append(problem.scores(found, fold))
    return problem.scored(folds, scores) if folds else None, found


class _Trial(NamedTuple):
    """What one strength gives on held-out rows."""

    C: float
    held_out: _Scored
    losses: NDArray[np.float64]
    start: Floats  # coefficients near those of all rows

    @property
    def loss(self) -> float:
        return float(np.average(self.losses, weights=self.held_out.weights))


def _choose(
    problem: _Problem, folds: Sequence[slice], usual: float, tol: float
) -> tuple[float, _Scored, Floats]:
    """Choose the strength by held-out rows: from the usual one on, as long as it gets better.

    The usual strength stays unless another one is better by more than two standard errors
    of the difference: what is best on few rows is so by chance. Each model starts from the one
    before on the same fold: it must know nothing of the rows that it is held against.

    Returns
    -------
    (float, _Scored, ndarray)
        The strength, the scores of held-out rows with it, and coefficients to start from.
    """
    coefficients: list[Floats | None] = [None] * len(folds)

    def trial(step: int) -> _Trial:
        C = float(f"{usual * _FACTOR**step:.3g}")
        scores = []
        for number, fold in enumerate(folds):
            found, _ = problem.solve(
                C, coefficients[number], tol * _TO_CHOOSE, without=fold, memory=new_memory()
            )
            scores.append(problem.scores(found, fold))
            coefficients[number] = found
        held_out = problem.scored(folds, scores)
        start = sum(found for found in coefficients if found is not None) / np.float32(len(folds))
        return _Trial(C, held_out, _losses(held_out), np.asarray(start, np.float32))

    first = best = trial(0)
    step = 0
    for direction in (-1, 1):
        while abs(step + direction) <= _MOST_STEPS:
            found = trial(step + direction)
            if found.loss >= best.loss:
                break
            step, best = step + direction, found
        if step:
            break
    if not _is_better(best, first):
        best = first
    return best.C, best.held_out, best.start


def _losses(scored: _Scored) -> NDArray[np.float64]:
    """Return the loss of each held-out row: whether it is wrong, and a little of its log loss.

    With a temperature of its own, since all strengths will have one. The log loss tells
    strengths apart that are wrong equally often.
    """
    temperature = fit_temperature(*scored)
    wrong = scored.scores.argmax(axis=1) != scored.codes
    losses = log_losses(scored.scores, scored.codes, temperature)
    return np.asarray(wrong + _LOG_LOSS * losses, np.float64)


def _is_better(one: _Trial, other: _Trial) -> bool:
    """Tell whether a mean loss is lower by more than chance explains."""
    weights = one.held_out.weights
    counts = np.ones(len(one.losses)) if weights is None else weights.astype(np.float64)
    gains = other.losses - one.losses
    gain = float(np.average(gains, weights=counts))
    error = float(np.sqrt(np.square(counts * (gains - gain)).sum()) / counts.sum())
    return gain > _STANDARD_ERRORS * error


def _check_strength(C: Any) -> None:
    """Raise `InvalidRequest` unless the weight of the loss is a number that float32 can hold."""
    if isinstance(C, bool) or not isinstance(C, Real) or not _LEAST_C <= float(C) <= _MOST_C:
        raise InvalidRequest(
            f"C={C!r} is not a strength; give 'auto', or a number from {_LEAST_C:g} to "
            f"{_MOST_C:g}, larger for weaker regularisation.",
            received=C,
        )


def _gram(rows: Floats, weights: Floats | None) -> Floats:
    """Return the sum of the rows' outer products, by their weights if they have any."""
    if weights is None:
        return np.asarray(rows.T @ rows)
    gram: Floats = np.zeros((rows.shape[1], rows.shape[1]), np.float32)
    for start in range(0, len(rows), _PART):
        part = slice(start, start + _PART)
        gram += (rows[part] * weights[part, None]).T @ rows[part]
    return gram


def _rows_of(part: slice) -> int:
    return int(part.stop - part.start)


def _in_folds(codes: NDArray[np.int64], folds: int) -> tuple[NDArray[np.int64], list[slice]]:
    """Order rows so that each held-out fold is a slice; rows of no fold come last."""
    parts = held_out_folds(codes, folds)
    if not parts:
        return np.arange(len(codes)), []
    slices = _slices(parts)
    rest = np.setdiff1d(np.arange(len(codes)), np.concatenate(parts))
    return np.concatenate([*parts, rest]), slices[:1] if len(codes) >= _MANY_ROWS else slices


def _slices(parts: Sequence[NDArray[np.int64]]) -> list[slice]:
    """Return where each part lies when they are put one after the other."""
    stops = np.cumsum([len(part) for part in parts]).tolist()
    return [slice(stop - len(part), stop) for part, stop in zip(parts, stops, strict=True)]
