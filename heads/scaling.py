"""Scaling of columns, and rotation of rows into their span."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .weights import Floats

_ROWS_PER_CHUNK = 1024
# Relative to the mean: a column with a smaller deviation is constant, at the resolution of float32.
CONSTANT = 1e-6


class StandardScaler:
    """Scales columns to mean 0 and standard deviation 1, in float32; constant columns become 0.

    `fold` merges the scaling into the weights of a linear head, so that predicting needs no
    scaled copy.

    Parameters
    ----------
    X : ndarray (n, d), float32
    rows : ndarray of int64, optional
        Rows that determine mean and standard deviation; default: all.
    weights : ndarray (n,), float32, optional
        Weight of each row; default: 1.
    """

    def __init__(
        self,
        X: Floats,
        rows: NDArray[np.int64] | None = None,
        weights: Floats | None = None,
    ) -> None:
        chosen = np.arange(len(X)) if rows is None else rows
        # float64 sums, since a float32 mean over many rows loses digits; in chunks, since a
        # float64 copy of the whole matrix would take twice its memory.
        chunks = np.array_split(chosen, max(1, len(chosen) // _ROWS_PER_CHUNK))
        total = float(len(chosen) if weights is None else weights[chosen].sum(dtype=np.float64))

        def weighted_sum(values: Floats, chunk: NDArray[np.int64]) -> NDArray[np.float64]:
            if weights is not None:
                values = values * weights[chunk, None]
            return np.asarray(values.sum(axis=0, dtype=np.float64))

        mean = sum(weighted_sum(X[chunk], chunk) for chunk in chunks) / total
        self.mean: Floats = np.asarray(mean, np.float32)
        squares = sum(weighted_sum(np.square(X[chunk] - self.mean), chunk) for chunk in chunks)
        std = np.sqrt(squares / total)
        # Relative to the mean, since embeddings have any unit: a column that varies by less
        # than the resolution of float32 is constant.
        tiny = std <= CONSTANT * np.abs(self.mean)
        self.scale: Floats = np.where(tiny | (std == 0), 1.0, std).astype(np.float32)

    @classmethod
    def of_moments(cls, mean: NDArray[Any], scale: NDArray[Any]) -> StandardScaler:
        """Return the scaler with a mean and a standard deviation (d,), which is not 0."""
        scaler = cls.__new__(cls)
        scaler.mean, scaler.scale = mean.astype(np.float32), scale.astype(np.float32)
        return scaler

    def __call__(self, X: Floats, rows: NDArray[np.int64] | None = None) -> Floats:
        """Return a standardised copy of X, or of the given rows in their order."""
        scaled: Floats = X - self.mean if rows is None else X[rows]
        if rows is not None:
            scaled -= self.mean
        scaled /= self.scale
        return scaled

    def fold(self, coefficients: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Convert weights (k, d) and intercept (k,) for scaled columns to those for raw columns."""
        raw = coefficients / self.scale
        return raw.astype(np.float32), (intercept - raw @ self.mean).astype(np.float32)


def row_space(X: Floats) -> tuple[Floats, Floats | None]:
    """Rotate rows into their span, if there are fewer rows than columns.

    The weights of a linear head with an L2 penalty lie in the span of the training rows, so
    solving there is exact, and much cheaper if there are fewer rows than columns.

    Parameters
    ----------
    X : ndarray (n, d), float32

    Returns
    -------
    (ndarray (n, r), ndarray (r, d) or None)
        Rows ``Z`` and orthonormal axes ``V`` with ``X = Z @ V``; X itself and None if
        n >= d.
    """
    if len(X) >= X.shape[1]:
        return X, None
    values, vectors = np.linalg.eigh((X @ X.T).astype(np.float64))
    kept = values > max(values[-1], 0.0) * 1e-6
    if not kept.any():
        return X, None
    size = np.sqrt(values[kept])
    axes = ((vectors[:, kept] / size).T @ X).astype(np.float32)
    return (vectors[:, kept] * size).astype(np.float32), axes
