"""Weighted sums over rows and over products of their columns, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from .blocks import Block, Codes
from .weights import Floats, RowWeights

Doubles = NDArray[np.float64]

ROWS_PER_CHUNK = 4096
_COLUMNS_AT_ONCE = 128
_MIN_VARIANCE = 1e-12


class RowSums:
    """Sums over rows in float64, with the weights of the loss.

    About a shift near the mean, so that columns with a large mean lose no digits.

    Parameters
    ----------
    width : int
        Number of columns.
    shift : ndarray (d,), optional
        Default: the mean of the rows that are added first.

    Attributes
    ----------
    total : float
        Sum of the weights.
    """

    def __init__(self, width: int, shift: Floats | None = None) -> None:
        self.total = 0.0
        self._shift = shift
        self._first: Doubles = np.zeros(width)
        self._products: Doubles = np.zeros((width, width))

    def add(self, block: Block) -> None:
        """Add rows."""
        shift = self._shift
        if shift is None:
            shift = block.rows.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._shift = shift
        for start in range(0, len(block.rows), ROWS_PER_CHUNK):
            part = slice(start, start + ROWS_PER_CHUNK)
            self._add(block.rows[part] - shift, block.codes[part], block.weights.take(part))

    def _add(self, rows: Floats, codes: Codes, weights: RowWeights) -> Floats:
        """Add rows about the shift, and return them times their weights."""
        weighted = rows if weights.loss is None else rows * weights.loss[:, None]
        self.total += sum_of_weights(weights.loss, len(rows))
        self._first += weighted.sum(axis=0, dtype=np.float64)
        self._products += weighted.T @ rows
        return weighted

    def merge(self, other: RowSums) -> None:
        """Add sums over other rows, about the same shift."""
        self.total += other.total
        self._first += other._first
        self._products += other._products

    def shifted(self, mean: Doubles) -> Doubles:
        """Return a mean about the shift as a mean about 0."""
        assert self._shift is not None  # there are rows
        return self._shift + mean

    def mean(self) -> Doubles:
        """Return the mean (d,) about the shift."""
        return np.asarray(self._first / self.total, np.float64)

    def products(self, mean: Doubles, *, in_place: bool = False) -> Doubles:
        """Return the sums (d, d) of products of the columns, less a mean about the shift.

        `in_place` takes no second matrix; the sums cannot be used afterwards.
        """
        found = self._products if in_place else self._products.copy()
        half = self._first - 0.5 * self.total * mean
        for start in range(0, len(mean), _COLUMNS_AT_ONCE):
            part = slice(start, start + _COLUMNS_AT_ONCE)
            found[part] -= np.outer(half[part], mean)
            found[part] -= np.outer(mean[part], half)
        return found


def sum_of_weights(weights: Floats | None, count: int) -> float:
    """Return the sum of the weights of `count` rows; None stands for 1 each."""
    return float(count if weights is None else weights.sum(dtype=np.float64))


class Axes(NamedTuple):
    """The mean of rows and their principal axes.

    Attributes
    ----------
    mean : ndarray (d,), float32
    components : ndarray (c, d), float32
        Scaled so that each component has standard deviation 1.
    """

    mean: Floats
    components: Floats

    def reduce(self, rows: Floats) -> Floats:
        """Return the components (b, c) of rows."""
        return np.asarray((rows - self.mean) @ self.components.T, np.float32)


def principal_axes(sums: RowSums, n_components: int) -> Axes:
    """Return the principal axes of rows.

    As many as there are columns, or rows but one, at most, with the signs of scikit-learn's PCA.
    The sums cannot be used afterwards.
    """
    mean = sums.mean()
    covariance = sums.products(mean, in_place=True)
    covariance /= max(1.0, sums.total - 1)
    width = len(mean)
    kept = min(n_components, width, max(1, int(sums.total) - 1))
    # The transpose of a symmetric matrix has the column order that LAPACK needs without a copy.
    values, vectors = eigh(
        covariance.T, subset_by_index=(width - kept, width - 1), overwrite_a=True,
        check_finite=False,
    )  # fmt: skip
    values, axes = values[::-1], vectors.T[::-1]
    largest = np.abs(axes).argmax(axis=1)
    signs = np.where(axes[np.arange(kept), largest] < 0, -1.0, 1.0)
    scale = signs / np.sqrt(np.maximum(values, _MIN_VARIANCE))
    return Axes(
        sums.shifted(mean).astype(np.float32),
        np.ascontiguousarray(axes * scale[:, None], np.float32),
    )
