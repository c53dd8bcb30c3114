"""Fit the steps that transform rows: they see the rows that they are fitted on, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..._io.wording import format_count
from ...errors import InvalidRequest
from ...store.lazy_rows import LazyRows
from .rows import row_blocks
from .steps import RowStep

_Doubles = NDArray[np.float64]
_MAX_VALUES = 2**28  # of a matrix of float64 in memory: 2 GiB
# A column of float32 that varies by less than this, relative to its mean, is constant.
_CONSTANT = 1e-6


def fit_l2(rows: LazyRows) -> RowStep:
    """Return the step that divides each row by its length; there is nothing to fit."""
    return RowStep("l2", 0, rows.shape[1])


def fit_standardize(rows: LazyRows) -> RowStep:
    """Return the step that gives each column of rows mean 0 and standard deviation 1.

    Mean and variance are computed in float64 in two passes over blocks of rows. Constant columns
    become 0.

    Raises
    ------
    InvalidRequest
        If there are no rows.
    """
    mean = _mean(rows, "standardize()")
    squares = sum(np.square(block - mean).sum(axis=0) for block in _blocks(rows))
    std = np.sqrt(squares / len(rows))
    scale = np.where(std <= _CONSTANT * np.abs(mean), 1, std).astype(np.float32)
    scale[scale == 0] = 1  # a deviation that float32 cannot hold
    arrays = {"mean": mean.astype(np.float32), "scale": scale}
    return RowStep("standardize", 0, rows.shape[1], arrays)


def fit_pca(rows: LazyRows, n_components: int) -> RowStep:
    """Return the step that projects rows on their first principal components.

    Components are those of `sklearn.decomposition.PCA`, with the same signs: the value of each
    that is largest in magnitude is positive. They are computed in float64, from the covariance of
    the columns or, for fewer rows than columns, from the centred rows.

    Raises
    ------
    InvalidRequest
        If `n_components` is not a whole number from 1 to the smaller of the numbers of rows and
        columns, or that takes more than 2 GiB.
    """
    import scipy.linalg  # slow to import

    count, width = rows.shape
    _check_components(n_components, count, width)
    mean = _mean(rows, "pca()")
    if count < width:
        centred = np.asarray(rows).astype(np.float64)
        centred -= mean
        axes = scipy.linalg.svd(centred, full_matrices=False, overwrite_a=True)[2][:n_components]
    else:
        chosen = (width - n_components, width - 1)
        vectors = scipy.linalg.eigh(_scatter(rows, mean), subset_by_index=chosen)[1]
        axes = vectors.T[::-1]
    largest = np.abs(axes).argmax(axis=1)
    signs = np.where(axes[np.arange(len(axes)), largest] < 0, -1, 1)
    components = np.ascontiguousarray(axes * signs[:, None], np.float32)
    return RowStep("pca", 0, width, {"mean": mean.astype(np.float32), "components": components})


def _check_components(n_components: object, count: int, width: int) -> None:
    whole = isinstance(n_components, (int, np.integer)) and not isinstance(n_components, bool)
    if not whole or not 1 <= n_components <= min(count, width):  # type: ignore[operator]
        raise InvalidRequest(
            f"pca({n_components!r}) must be a whole number from 1 to {min(count, width)}, the "
            f"smaller of {format_count(count, 'row')} and {format_count(width, 'column')}.",
            received=n_components,
        )
    if min(count, width) * width > _MAX_VALUES:
        raise InvalidRequest(
            f"PCA of {count:,} rows of {width:,} values takes more than 2 GiB. Fit it on at most "
            f"{_MAX_VALUES // width:,} rows, and apply it to the others with transformed_like().",
            received=(count, width),
        )


def _blocks(rows: LazyRows) -> Iterator[_Doubles]:
    for block in row_blocks(*rows.shape):
        yield rows[block].astype(np.float64)


def _mean(rows: LazyRows, name: str) -> _Doubles:
    if not len(rows):
        raise InvalidRequest(f"{name} needs at least one row to be fitted on.", received=0)
    total = np.zeros(rows.shape[1])
    for block in _blocks(rows):
        total += block.sum(axis=0)
    return total / len(rows)


def _scatter(rows: LazyRows, mean: _Doubles) -> _Doubles:
    """Return the sums of products of centred columns, which are the covariance times n."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for block in _blocks(rows):
        block -= mean
        total += block.T @ block
    return total
