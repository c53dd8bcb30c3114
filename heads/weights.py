"""Weights of training rows: sample weights, class weights, and merging of equal rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils.class_weight import compute_class_weight

from featcache.errors import InvalidRequest

Floats = NDArray[np.float32]
# Weights of classes by label; labels may be of any type that sorts.
ClassWeight = Literal["balanced"] | Mapping[Any, float] | None
Codes = NDArray[np.int64]


class RowWeights(NamedTuple):
    """Weights of training rows; None stands for 1 each.

    Attributes
    ----------
    sample : ndarray (n,) of float32 or None
        Sample weight of each row.
    loss : ndarray (n,) of float32 or None
        Sample weight times class weight of each row.
    """

    sample: Floats | None = None
    loss: Floats | None = None

    def spread(self, rows: Codes, count: int) -> RowWeights:
        """Return the weights of `count` rows, of which only some have one."""
        return RowWeights(*(None if part is None else spread(part, rows, count) for part in self))

    def take(self, rows: NDArray[np.int64] | slice) -> RowWeights:
        """Return the weights of some rows."""
        return RowWeights(*(None if part is None else part[rows] for part in self))


def spread(values: NDArray[Any], rows: Codes, count: int) -> NDArray[Any]:
    """Return an array of `count` values: those of some rows, and 0 for the others."""
    found = np.zeros(count, values.dtype)
    found[rows] = values
    return found


def check_sample_weight(sample_weight: ArrayLike | None, n_rows: int) -> NDArray[np.float64] | None:
    """Validate sample weights; return one per row, or None if all are 1.

    Raises
    ------
    InvalidRequest
        If there is another number of weights, one is negative or not finite, or all are 0.
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
            "sample_weight must hold finite numbers of at least zero, not all of them zero, but it "
            f"lies between {weights.min()} and {weights.max()}. A row of weight k counts as k "
            "copies.",
            received=[float(weights.min()), float(weights.max())],
        )
    return None if (weights == 1).all() else weights


def merge_copies(
    X: Floats,
    codes: Codes,
    weights: NDArray[np.float64] | None,
    groups: Codes | None = None,
) -> tuple[Floats, Codes, NDArray[np.float64] | None, Codes | None]:
    """Merge equal rows of a class into one row with the sum of their weights.

    A row of weight k thus has the same effect as k copies, and the rows that are held out of
    training contain no copy of a training row.

    Parameters
    ----------
    X : ndarray (n, d), float32
    codes : ndarray (n,)
        Class of each row. Equal rows of different classes are not merged.
    weights : ndarray (n,) or None
        Positive weights; None for 1 each.
    groups : ndarray (n,) of int64, optional
        Number of the group of each row, from 0 without gaps. Groups that have copies of one row
        become one group.

    Returns
    -------
    (ndarray, ndarray, ndarray or None, ndarray or None)
        Rows, codes, weights and groups. The arguments themselves if there are no copies and all
        weights are 1; otherwise in an order that depends only on the rows.

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
        return X, codes, None, groups
    counts = np.ones(len(X)) if weights is None else weights
    _, first, merged = np.unique(
        np.array(digests, "V16").view(">u8").reshape(-1, 2), axis=0, return_index=True,
        return_inverse=True,
    )  # fmt: skip
    summed = np.asarray(np.bincount(merged.ravel(), weights=counts), np.float64)
    united = None if groups is None else _united(groups, merged.ravel())[first]
    return X[first], codes[first], summed, united


def _united(groups: Codes, merged: NDArray[np.intp]) -> Codes:
    """Return groups, where those with rows that are merged into one become one group."""
    size = int(groups.max()) + 1
    edges = coo_array((np.ones(len(groups)), (groups, size + merged)), (size + len(merged),) * 2)
    _, number = connected_components(edges, directed=False)
    return np.asarray(number[groups], np.int64)


def row_weights(
    class_weight: ClassWeight,
    classes: NDArray[Any],
    codes: Codes,
    sample: NDArray[np.float64] | None,
) -> RowWeights:
    """Combine sample weights and class weights.

    Parameters
    ----------
    class_weight : {None, "balanced"} or mapping
        Weight by label; a missing label has weight 1.
    classes : ndarray (k,)
        Labels.
    codes : ndarray (n,)
        Index into `classes` of each row.
    sample : ndarray (n,) or None
        Sample weights.

    Returns
    -------
    RowWeights

    Raises
    ------
    InvalidRequest
        If `class_weight` is anything else, or holds weights that are not finite and positive.
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
                f"class_weight={class_weight!r} must hold finite weights above 0.",
                received=class_weight,
            )
    else:
        raise InvalidRequest(
            f"class_weight={class_weight!r} must be None, 'balanced', or a dict from label to "
            "weight.",
            received=class_weight,
        )
    loss = per_class[codes] * (1.0 if sample is None else sample)
    return RowWeights(rows, loss.astype(np.float32))
