"""Choice of C by held-out rows, for `C="auto"` of the linear heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .base import Floats
from .calibration import fit_temperature, log_losses
from .solver import new_memory

if TYPE_CHECKING:
    from .problem import Problem

# Factor of `tol` for models that are discarded once C is chosen.
_CHOICE_TOL = 10
# C="auto" tries the default C times powers of this factor.
_C_FACTOR = 10**0.5
_MAX_C_STEPS = 3
_LOG_LOSS_WEIGHT = 0.25  # relative to the error rate
_STANDARD_ERRORS = 2.0  # by which another C must be better than the default


class HeldOutScores(NamedTuple):
    """Scores of held-out rows by models trained without them, and facts on these rows.

    Attributes
    ----------
    scores : ndarray (n, k)
    codes : ndarray (n,)
        Class of each row.
    weights : ndarray (n,) or None
    groups : ndarray (n,) of int64, or None
    """

    scores: Floats
    codes: NDArray[np.int64]
    weights: Floats | None
    groups: NDArray[np.int64] | None = None

    def temperature(self) -> float:
        """Return the best temperature of the scores."""
        return fit_temperature(self.scores, self.codes, self.weights)


class _Trial(NamedTuple):
    """Results of one value of C on the held-out rows."""

    C: float
    held_out: HeldOutScores
    losses: NDArray[np.float64]
    start: Floats  # approximate coefficients of all rows

    @property
    def loss(self) -> float:
        return float(np.average(self.losses, weights=self.held_out.weights))


def choose_strength(
    problem: Problem, folds: Sequence[slice], default: float, tol: float
) -> tuple[float, HeldOutScores, Floats]:
    """Choose C by held-out rows: from the default on, in steps, as long as the loss decreases.

    The default is kept unless another value is better by more than two standard errors of the
    difference, since on few rows the lowest loss is one by chance. Each model starts from the
    previous one of the same fold, which was trained without the rows that it is tested on.

    Returns
    -------
    (float, HeldOutScores, ndarray)
        C, the scores of the held-out rows with it, and coefficients to start from.
    """
    coefficients: list[Floats | None] = [None] * len(folds)

    def trial(step: int) -> _Trial:
        C = float(f"{default * _C_FACTOR**step:.3g}")
        scores = []
        for number, fold in enumerate(folds):
            found, _ = problem.solve(
                C, coefficients[number], tol * _CHOICE_TOL, without=fold, memory=new_memory()
            )
            scores.append(problem.scores(found, fold))
            coefficients[number] = found
        held_out = problem.scored(folds, scores)
        start = sum(found for found in coefficients if found is not None) / np.float32(len(folds))
        return _Trial(C, held_out, _losses(held_out), np.asarray(start, np.float32))

    first = best = trial(0)
    step = 0
    for direction in (-1, 1):
        while abs(step + direction) <= _MAX_C_STEPS:
            found = trial(step + direction)
            if found.loss >= best.loss:
                break
            step, best = step + direction, found
        if step:
            break
    if not _is_better(best, first):
        best = first
    return best.C, best.held_out, best.start


def _losses(scored: HeldOutScores) -> NDArray[np.float64]:
    """Return the loss of each held-out row: its error, 0 or 1, plus a fraction of its log loss.

    The log loss, at the best temperature of these scores, separates values of C that have the
    same number of errors.
    """
    temperature = scored.temperature()
    wrong = scored.scores.argmax(axis=1) != scored.codes
    losses = log_losses(scored.scores, scored.codes, temperature)
    return np.asarray(wrong + _LOG_LOSS_WEIGHT * losses, np.float64)


def _is_better(one: _Trial, other: _Trial) -> bool:
    """Return whether the mean loss of `one` is lower by more than two standard errors."""
    weights, groups = one.held_out.weights, one.held_out.groups
    counts = np.ones(len(one.losses)) if weights is None else weights.astype(np.float64)
    gains = other.losses - one.losses
    gain = float(np.average(gains, weights=counts))
    deviations: NDArray[Any] = counts * (gains - gain)
    if groups is not None:  # not independent within a group
        deviations = np.bincount(groups, weights=deviations)
    error = float(np.sqrt(np.square(deviations).sum()) / counts.sum())
    return gain > _STANDARD_ERRORS * error
