"""Rows without a label are never a class: training leaves them out, and says how many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import get_logger, is_missing

log = get_logger(__name__)


def labelled(X: Any, y: Any) -> NDArray[np.bool_] | None:
    """Tell which rows have a label, neither None, NaN, "" nor blanks.

    Parameters
    ----------
    X : array-like (n, d)
    y : array-like (n,)
        As `featcache.Features.y` or ``labels``, or a pandas Series.

    Returns
    -------
    ndarray (n,) of bool or None
        None if all have one, or if the lengths differ.

    Examples
    --------
    >>> labelled([[1.0], [2.0]], ["a", None])
    array([ True, False])
    """
    values = _values(y)
    if values.ndim != 1 or values.dtype.kind not in "fOU" or len(values) != np.shape(X)[0]:
        return None
    known = np.array([not is_missing(value) for value in values], bool)
    return None if known.all() else known


def take_labelled(X: Any, y: Any, known: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Return the labelled rows and their labels, and log how many rows are left out.

    Codes that were floats to make room for NaN are whole numbers again.
    """
    log.warning("Unlabelled rows are left out: %d of %d.", int((~known).sum()), len(known))
    kept = _values(y)[known].tolist()
    if all(isinstance(value, float) and value.is_integer() for value in kept):
        kept = [int(value) for value in kept]
    return np.asarray(X)[known], kept


def _values(y: Any) -> NDArray[Any]:
    return np.asarray(y, object) if isinstance(y, (list, tuple)) else np.asarray(y)
