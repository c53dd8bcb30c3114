"""Weights of training rows: by sample, by class, and for copies of a row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight

from featcache.errors import InvalidRequest

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]


class RowWeights(NamedTuple):
    """Weights of training rows; None stands for 1 each.

    Attributes
    ----------
    sample : ndarray (n,) of float32 or None
        How many times each row counts.
    loss : ndarray (n,) of float32 or None
        The same, times the weight of the row's class.
    """

    sample: Floats | None = None
    loss: Floats | None = None

    def take(self, rows: NDArray[np.int64] | slice) -> RowWeights:
        """Return the weights of some rows."""
        return RowWeights(*(None if part is None else part[rows] for part in self))


def check_sample_weight(sample_weight: ArrayLike | None, n_rows: int) -> NDArray[np.float64] | None:
    """Return one finite weight per row, or None if each is 1.

    Raises
    ------
    InvalidRequest
        For another number of weights, negative ones, or if all are zero.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, np.float64)
    if weights.ndim == 0:
        weights = np.full(n_rows, float(weights))
    if weights.shape != (n_rows,):
        raise InvalidRequest(
            f"sample_weight has the shape {weights.shape}, but there are {n_rows} rows; give one "
            "weight per row.",
            received=weights.shape,
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InvalidRequest(
            "sample_weight must hold finite numbers from zero, not all of them zero, but it lies "
            f"between {weights.min()} and {weights.max()}. Each weight says how many times a row "
            "counts.",
            received=[float(weights.min()), float(weights.max())],
        )
    return None if (weights == 1).all() else weights


def merge_copies(
    X: Floats, codes: Codes, weights: NDArray[np.float64] | None
) -> tuple[Floats, Codes, NDArray[np.float64] | None]:
    """Count copies of a row as one row with the sum of their weights.

    A row of weight k thus trains exactly as k copies do, and no copy of a training row is
    among the rows that are held out of training.

    Parameters
    ----------
    X : ndarray (n, d)
    codes : ndarray (n,)
        Class of each row. Equal rows of two classes are no copies.
    weights : ndarray (n,) or None
        Above zero.

    Returns
    -------
    (ndarray, ndarray, ndarray or None)
        The arguments themselves if there are no copies and all weights are 1; else in an
        order that depends on the rows alone.

    Examples
    --------
    >>> X = np.array([[1.0], [1.0], [2.0]], np.float32)
    >>> merge_copies(X, np.array([0, 0, 1]), None)[2].tolist()
    [1.0, 2.0]
    """
    digests = [
        hashlib.blake2b(row.tobytes() + code.tobytes(), digest_size=16).digest()
        for row, code in zip(X, codes, strict=True)
    ]
    plain = weights is None or bool((weights == 1).all())
    if plain and len(set(digests)) == len(digests):
        return X, codes, None
    counts = np.ones(len(X)) if weights is None else weights
    _, first, group = np.unique(
        np.array(digests, "V16").view(">u8").reshape(-1, 2), axis=0, return_index=True,
        return_inverse=True,
    )  # fmt: skip
    summed = np.asarray(np.bincount(group.ravel(), weights=counts), np.float64)
    return X[first], codes[first], summed


def row_weights(
    class_weight: Any, classes: NDArray[Any], codes: Codes, sample: NDArray[np.float64] | None
) -> RowWeights:
    """Join the weights of rows with those of their classes.

    Parameters
    ----------
    class_weight : {None, "balanced"} or mapping
        From a label to its weight; a label that is not there has weight 1.
    classes : ndarray (k,)
    codes : ndarray (n,)
    sample : ndarray (n,) or None

    Raises
    ------
    InvalidRequest
        For anything else.
    """
    rows = None if sample is None else sample.astype(np.float32)
    if class_weight is None:
        return RowWeights(rows, rows)
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(codes, weights=sample, minlength=len(classes))
        per_class = counts.sum() / (len(classes) * counts)
    elif isinstance(class_weight, Mapping):
        try:
            chosen = dict(class_weight)
            per_class = compute_class_weight(chosen, classes=classes, y=classes[codes])
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"class_weight: {error}.", received=class_weight) from error
        if not np.isfinite(per_class).all() or (per_class <= 0).any():
            raise InvalidRequest(
                f"class_weight={class_weight!r} must hold finite weights above zero.",
                received=class_weight,
            )
    else:
        raise InvalidRequest(
            f"class_weight={class_weight!r} is not known; give None, 'balanced', or a dict from "
            "label to weight.",
            received=class_weight,
        )
    loss = per_class[codes] * (1.0 if sample is None else sample)
    return RowWeights(rows, loss.astype(np.float32))
