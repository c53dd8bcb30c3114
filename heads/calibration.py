"""Temperature scaling: fitted on held-out rows, by cross-validation, or from a prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from .groups import count_groups
from .held_out import held_out_folds

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

# A temperature is a single parameter: this many held-out rows, of different groups, determine it.
MIN_HELD_OUT = 50
_MAX_CROSS_FITTED = 200
_FOLDS = 3
SCORES_PER_CHUNK = 2_000_000
# Target for the mean margin of the training rows divided by log(k), used where no row can be held
# out. With MobileNetV2 features of Caltech-101 and one training image per class, the best
# temperature of every head gave a value between 2 and 5, for 24 as well as for 6 classes.
_PRIOR_MARGIN = 3.0


def choose_temperature(
    codes: Rows,
    unseen: Rows,
    scores: Callable[[Rows], NDArray[Any]],
    scores_of: Callable[[Rows, Rows], NDArray[Any]],
    random_state: int = 0,
    *,
    weights: Floats | None = None,
    groups: Rows | None = None,
    min_prior: float = 0.0,
) -> float:
    """Return the temperature of a trained model, by the best method that its rows allow.

    With at least 50 held-out rows it is fitted on these, with fewer by cross-validation; if
    every class has a single row, it comes from a prior. With groups, read group for row.

    Parameters
    ----------
    codes : ndarray (n,)
        Class of each row.
    unseen : ndarray of int64
        Held-out rows, which no step of training used.
    scores : callable
        Returns the trained model's scores (m, k) of rows.
    scores_of : callable
        Called with rows to train another model on and rows to score; returns scores (m, k).
    random_state : int
        Seed of the folds.
    weights : ndarray (n,), optional
        Weight of each row; default: 1.
    groups : ndarray (n,) of int64, optional
        Number of the group of each row, from 0 without gaps, if folds must keep groups together.
    min_prior : float
        Lower bound of a temperature from the prior: 1 for a network without a penalty on its
        weights, which is too confident otherwise.

    Returns
    -------
    float
    """
    if count_groups(groups, unseen) >= MIN_HELD_OUT:
        return fit_temperature(scores(unseen), codes[unseen], _take(weights, unseen))
    fitted = cross_fitted_temperature(scores_of, codes, random_state, weights, groups)
    if fitted is not None:
        return fitted
    return max(min_prior, prior_temperature(scores(np.arange(len(codes))), codes, weights))


def fit_temperature(scores: NDArray[Any], codes: Rows, weights: Floats | None = None) -> float:
    """Return the divisor of the scores that minimises the log loss on held-out rows.

    The targets are smoothed after Platt 1999: ``1 - 1 / (n + 2)`` for the true class, the rest
    divided among the other classes. Otherwise n correct rows alone would give a temperature near
    0, and later errors a probability of 1.

    Parameters
    ----------
    scores : ndarray (n, k)
    codes : ndarray (n,)
        Class of each row.
    weights : ndarray (n,), optional
        Weight of each row; default: 1.

    Returns
    -------
    float
        Between 0.001 and 1000.
    """
    total = len(codes) if weights is None else float(weights.sum(dtype=np.float64))

    def loss(log_temperature: float) -> float:
        losses = log_losses(scores, codes, float(np.exp(log_temperature)))
        return float(losses.sum() if weights is None else weights @ losses) / total

    bounds = (np.log(1e-3), np.log(1e3))
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def log_losses(scores: NDArray[Any], codes: Rows, temperature: float) -> NDArray[np.float64]:
    """Return the log loss of each row at a temperature, with targets smoothed after Platt 1999."""
    smoothing = 1 / (len(codes) + 2)
    others = scores.shape[1] - 1
    losses = np.empty(len(codes))
    for chunk in score_chunks(*scores.shape):
        logs = log_softmax(scores[chunk] / temperature, axis=1)
        own = logs[np.arange(len(logs)), codes[chunk]]
        rest = (logs.sum(axis=1) - own) / others
        losses[chunk] = -((1 - smoothing) * own + smoothing * rest)
    return losses


def prior_temperature(scores: NDArray[Any], codes: Rows, weights: Floats | None = None) -> float:
    """Return a temperature from the scores of the training rows, if no row can be held out.

    It scales the mean margin of the training rows to ``3 log(k)``, a value measured on other
    data: a head trained on one row per class separates its training rows by much more than new
    rows, so that they give no evidence of its errors.

    Parameters
    ----------
    scores : ndarray (n, k)
        Scores of the training rows.
    codes : ndarray (n,)
        Class of each row.
    weights : ndarray (n,), optional
        Weight of each row; default: 1.

    Returns
    -------
    float
        1 if the scores do not separate the training rows.
    """
    margins = [_margins(scores[chunk], codes[chunk]) for chunk in score_chunks(*scores.shape)]
    margin = float(np.average(np.concatenate(margins), weights=weights))
    temperature = margin / (_PRIOR_MARGIN * np.log(scores.shape[1]))
    return float(np.clip(temperature, 1e-3, 1e3)) if temperature > 0 else 1.0


def score_chunks(rows: int, classes: int) -> list[slice]:
    """Divide rows into chunks: with 10,000 classes, copies of all scores would take gigabytes."""
    size = max(1, SCORES_PER_CHUNK // classes)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _margins(scores: NDArray[Any], codes: Rows) -> NDArray[np.float64]:
    """Return the margin of each row: the score of its class minus the largest of the others."""
    rows = np.arange(len(codes))
    others = np.array(scores, np.float64)
    own = others[rows, codes].copy()
    others[rows, codes] = -np.inf
    return np.asarray(own - others.max(axis=1))


def cross_fitted_temperature(
    scores_of: Callable[[Rows, Rows], NDArray[Any]],
    codes: Rows,
    random_state: int = 0,
    weights: Floats | None = None,
    groups: Rows | None = None,
    *,
    n_folds: int = _FOLDS,
    max_rows: int = _MAX_CROSS_FITTED,
) -> float | None:
    """Fit a temperature by cross-validation: each row is scored by a model trained without it.

    A temperature must not be fitted on training rows (Platt 1999; Guo et al. 2017,
    arXiv:1706.04599); Platt proposes cross-validation if there are few rows.

    Parameters
    ----------
    scores_of : callable
        Called with rows to train on and rows to score; returns scores (m, k).
    codes : ndarray (n,)
        Class of each row.
    random_state : int
        Seed of the folds.
    weights : ndarray (n,), optional
        Weight of each row; default: 1.
    groups : ndarray (n,) of int64, optional
        Number of the group of each row, from 0 without gaps. Each row is then scored by a model
        that was trained without any row of its group.
    n_folds : int
        Maximum number of folds.
    max_rows : int
        No further fold is scored once as many rows were.

    Returns
    -------
    float or None
        None if every class has a single row or group.
    """
    everything = np.arange(len(codes))
    held_out: list[Rows] = []
    scores: list[NDArray[Any]] = []
    for fold in held_out_folds(codes, n_folds, random_state, groups):
        scores.append(scores_of(np.setdiff1d(everything, fold), fold))
        held_out.append(fold)
        if sum(count_groups(groups, rows) for rows in held_out) >= max_rows:
            break
    if not held_out:
        return None
    rows = np.concatenate(held_out)
    return fit_temperature(np.concatenate(scores), codes[rows], _take(weights, rows))


def _take(weights: Floats | None, rows: Rows) -> Floats | None:
    return None if weights is None else weights[rows]
