"""Rows without a label: training leaves them out, and logs how many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import get_logger, is_missing

log = get_logger(__name__)


def labelled_mask(X: Any, y: Any) -> NDArray[np.bool_] | None:
    """Return a mask of the rows that have a label: not None, NaN, "" or blanks.

    Parameters
    ----------
    X : array-like (n, d)
    y : array-like (n,)
        Such as `featcache.Features.y` or ``labels``, or a pandas Series.

    Returns
    -------
    ndarray (n,) of bool or None
        None if all rows have a label, or if the lengths differ.

    Examples
    --------
    >>> labelled_mask([[1.0], [2.0]], ["a", None])
    array([ True, False])
    """
    values = _values(y)
    if values.ndim != 1 or values.dtype.kind not in "fOU" or len(values) != np.shape(X)[0]:
        return None
    mask = np.array([not is_missing(value) for value in values], bool)
    return None if mask.all() else mask


def take_labelled(X: Any, y: Any, mask: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Return the labelled rows and their labels, and log how many rows are left out.

    Codes that are floats because of NaN for unlabelled rows become integers again.
    """
    log.warning("Unlabelled rows are left out: %d of %d.", int((~mask).sum()), len(mask))
    kept = _values(y)[mask].tolist()
    if all(isinstance(value, float) and value.is_integer() for value in kept):
        kept = [int(value) for value in kept]
    return np.asarray(X)[mask], kept


def _values(y: Any) -> NDArray[Any]:
    return np.asarray(y, object) if isinstance(y, (list, tuple)) else np.asarray(y)
