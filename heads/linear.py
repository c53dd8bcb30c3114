"""Base class of the linear heads: scaling, the solver, the choice of C and the temperature."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest

from .base import Floats
from .blocks import RowBlocks
from .calibration import prior_temperature
from .groups import Codes, count_groups
from .held_out import held_out_folds
from .linear_scores import LinearScoresHead
from .parameters import Integers, Interval, check_parameters
from .problem import Problem
from .scaling import StandardScaler, row_space
from .streamed import fit_streamed
from .strength import HeldOutScores, choose_strength
from .weights import RowWeights

# Factor of `tol` for models that are discarded once they have given a temperature.
_TEMPERATURE_TOL = 30
_CHOICE_FOLDS = 3
# With fewer rows, held-out rows determine the best C less well than the default does.
_MIN_ROWS_PER_CLASS = 8
# A temperature is a single parameter: with this many rows, one held-out fold determines it.
_ONE_FOLD_ROWS = 4000
_SOLVER_VECTORS = 24  # two for each of the steps that it remembers, and those of an iteration
_MIN_C, _MAX_C = 1e-12, 1e12  # beyond them float32 loses the loss or the penalty

_PARAMETERS: dict[str, Integers | Interval] = {
    "max_iter": Integers(1),
    "tol": Interval(0, closed_low=True),
    "calibration_folds": Integers(0),
}


class LinearHead(LinearScoresHead):
    """Base class of heads whose weights minimise a smooth loss with an L2 penalty.

    Subclasses have the parameters ``C``, ``max_iter``, ``tol`` and ``calibration_folds``, and
    define the loss of the scores in `_loss`, which must be convex and smooth.

    Attributes
    ----------
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
    def default_strength(self) -> float:
        """The value of `C`; of "auto", the first one that it tries."""
        return self._default_strength if isinstance(self.C, str) else float(self.C)

    def _check_parameters(self) -> None:
        check_parameters(self, _PARAMETERS)
        if self.C != "auto":
            _check_strength(self.C)

    def _bytes_besides_blocks(self, count: int, width: int) -> int:
        # Products in float64 and the last of them in float32; the vectors of the solver.
        return 12 * width**2 + _SOLVER_VECTORS * 4 * width * len(self.classes_)

    def _fit_blocks(self, blocks: RowBlocks, groups: Codes | None) -> None:
        fit_streamed(self, blocks, groups)

    def _fit_codes(
        self, X: Floats, codes: NDArray[np.int64], weights: RowWeights, groups: Codes | None
    ) -> None:
        self._check_parameters()
        is_auto = self.C == "auto"
        n_different = count_groups(groups, np.arange(len(codes)))
        choose = is_auto and n_different >= _MIN_ROWS_PER_CLASS * len(self.classes_)
        scale = StandardScaler(X, weights=weights.sample)
        n_folds = self.calibration_folds or (_CHOICE_FOLDS if choose else 0)
        order, folds = _order_by_fold(codes, n_folds, groups)
        folds = folds[:1] if n_different >= _ONE_FOLD_ROWS else folds
        rows, axes = row_space(scale(X, order))
        codes, weights = codes[order], weights.take(order)
        groups = None if groups is None else groups[order]
        problem = Problem(self, rows, codes, len(self.classes_), weights, groups)
        held_out: HeldOutScores | None
        found: Floats | None
        if choose and folds:
            self.C_, held_out, found = choose_strength(
                problem, folds, self._default_strength, self.tol
            )
        else:
            self.C_ = self.default_strength
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
        problem = Problem(self, rows, codes.astype(np.int64)[order], len(classes))
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


def _held_out_scores(
    problem: Problem, folds: Sequence[slice], C: float, tol: float
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
