"""Temperatures: from held-out rows, from cross-fitting where those are few, or from a prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

# A temperature is one number: this number of rows that training has not seen fixes it well enough.
ENOUGH_HELD_OUT = 50
_ENOUGH_CROSS_FITTED = 200
_FOLDS = 3
SCORES_PER_PIECE = 2_000_000
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
    least_prior: float = 0.0,
) -> float:
    """Return a trained model's temperature by the best evidence that there is.

    Parameters
    ----------
    codes : ndarray (n,)
        Class of each row.
    unseen : ndarray of int64
        Rows that no step of training used: enough of them fix the temperature alone.
    scores : callable
        From rows to the trained model's scores (m, k).
    scores_of : callable
        From the rows to train another model on and the rows to score to scores (m, k).
    random_state : int
        Of the folds.
    weights : ndarray (n,), optional
        How much each row counts; default: 1.
    least_prior : float
        Where every class has a single row, the temperature is at least this. 1 for a network
        without a penalty on its weights, which is too confident already.
    """
    if len(unseen) >= ENOUGH_HELD_OUT:
        return fit_temperature(scores(unseen), codes[unseen], _some(weights, unseen))
    fitted = cross_fitted_temperature(scores_of, codes, random_state, weights)
    if fitted is not None:
        return fitted
    return max(least_prior, prior_temperature(scores(np.arange(len(codes))), codes, weights))


def fit_temperature(scores: NDArray[Any], codes: Rows, weights: Floats | None = None) -> float:
    """Find the divisor of the scores that minimises the log loss on held-out rows.

    Each truth counts for ``1 - 1 / (n + 2)`` and the other classes divide the rest (after
    Platt 1999): n rows that are all right are no proof of never being wrong, and a divisor
    fitted to them alone would make every later mistake a certain one.

    Parameters
    ----------
    scores : ndarray (n, k)
    codes : ndarray (n,)
    weights : ndarray (n,), optional
        How much each row counts; default: 1.

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
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def log_losses(scores: NDArray[Any], codes: Rows, temperature: float) -> NDArray[np.float64]:
    """Return the log loss of each row's scores over a temperature, smoothed as by Platt."""
    doubt = 1 / (len(codes) + 2)
    others = scores.shape[1] - 1
    found = np.empty(len(codes))
    for piece in score_pieces(*scores.shape):
        logs = log_softmax(scores[piece] / temperature, axis=1)
        own = logs[np.arange(len(logs)), codes[piece]]
        rest = (logs.sum(axis=1) - own) / others
        found[piece] = -((1 - doubt) * own + doubt * rest)
    return found


def prior_temperature(scores: NDArray[Any], codes: Rows, weights: Floats | None = None) -> float:
    """Return a temperature for scores of the training rows, where no row can be held out.

    The mean margin of the training rows becomes ``3 log(k)``: a head on one row per class
    separates its rows by far more than it will new ones, and what is left after training
    says nothing of them.

    Parameters
    ----------
    scores : ndarray (n, k)
        Of the rows that the head was trained on.
    codes : ndarray (n,)
    weights : ndarray (n,), optional
        How much each row counts; default: 1.

    Returns
    -------
    float
        1 if the scores do not separate the training rows.
    """
    margins = [_margins(scores[piece], codes[piece]) for piece in score_pieces(*scores.shape)]
    margin = float(np.average(np.concatenate(margins), weights=weights))
    temperature = margin / (_PRIOR_MARGIN * np.log(scores.shape[1]))
    return float(np.clip(temperature, 1e-3, 1e3)) if temperature > 0 else 1.0


def score_pieces(rows: int, classes: int) -> list[slice]:
    """Divide rows into pieces: of 10,000 classes, copies of all scores would take gigabytes."""
    size = max(1, SCORES_PER_PIECE // classes)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _margins(scores: NDArray[Any], codes: Rows) -> NDArray[np.float64]:
    """Return by how much the score of each row's own class exceeds all others."""
    rows = np.arange(len(codes))
    others = np.array(scores, np.float64)
    own = others[rows, codes].copy()
    others[rows, codes] = -np.inf
    return np.asarray(own - others.max(axis=1))


def held_out_folds(codes: Rows, folds: int, random_state: int = 0) -> list[Rows]:
    """Deal rows into folds to hold out, so that training never lacks a class.

    Each fold holds out as many rows of a class as every other: a class that had one row
    fewer to train on than others of its size would be predicted less often, and just where
    its rows are scored. With penalties as strong as the heads' that outweighs the embedding.

    Parameters
    ----------
    codes : ndarray (n,)
        Class of each row.
    folds : int
        At most; fewer if no class has that many rows.
    random_state : int

    Returns
    -------
    list of ndarray of int64
        Rows of each fold. In none are the only row of a class, and what is left over of a
        class when its rows are divided. Empty for fewer than two folds.

    Examples
    --------
    >>> [len(fold) for fold in held_out_folds(np.array([0, 0, 0, 1, 1, 1, 1, 2]), 3)]
    [2, 2, 2]
    """
    counts = np.bincount(codes)
    order = np.random.default_rng(random_state).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]  # by class, shuffled within it
    rank = np.arange(len(codes)) - (np.cumsum(counts) - counts)[codes[order]]
    fold = rank // np.maximum(1, counts // max(1, folds))[codes[order]]
    fold[counts[codes[order]] < 2] = folds
    parts = [np.sort(order[fold == number]) for number in range(folds)]
    parts = [part for part in parts if len(part)]
    return parts if len(parts) > 1 else []


def cross_fitted_temperature(
    scores_of: Callable[[Rows, Rows], NDArray[Any]],
    codes: Rows,
    random_state: int = 0,
    weights: Floats | None = None,
) -> float | None:
    """Fit a temperature to scores that models without the scored rows gave.

    The rows that were held out of training are too few to fix a temperature, and those that
    were not are no evidence: Platt 1999 and Guo et al. 2017 (arXiv 1706.04599) both fit on
    rows unseen, Platt by cross-validation where rows are few.

    Parameters
    ----------
    scores_of : callable
        From the rows to train on and the rows to score to scores (m, k).
    codes : ndarray (n,)
    random_state : int
        Of the folds.
    weights : ndarray (n,), optional
        How much each row counts; default: 1.

    Returns
    -------
    float or None
        None if every class has a single row.
    """
    everything = np.arange(len(codes))
    held_out: list[Rows] = []
    scores: list[NDArray[Any]] = []
    for fold in held_out_folds(codes, _FOLDS, random_state):
        scores.append(scores_of(np.setdiff1d(everything, fold), fold))
        held_out.append(fold)
        if sum(map(len, held_out)) >= _ENOUGH_CROSS_FITTED:
            break
    if not held_out:
        return None
    rows = np.concatenate(held_out)
    return fit_temperature(np.concatenate(scores), codes[rows], _some(weights, rows))


def _some(weights: Floats | None, rows: Rows) -> Floats | None:
    return None if weights is None else weights[rows]
