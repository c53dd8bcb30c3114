"""Rows without a label are never a class: training leaves them out, and says how many."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from featcache import Features
from featcache.toolkit import is_missing

log = logging.getLogger("featcache")


def labelled_rows(X: Any, y: Any) -> tuple[Any, Any]:
    """Return the rows whose label is not missing (None, NaN, "" or blanks), and their labels.

    Parameters
    ----------
    X : array-like (n, d)
    y : array-like (n,)
        As `featcache.Features.y` or ``labels``, or a pandas Series.

    Returns
    -------
    (array-like, array-like)
        `X` and `y` themselves if all rows are labelled, or their lengths differ. The codes of
        an array that were floats to make room for NaN are whole numbers again.

    Examples
    --------
    >>> labelled_rows([[1.0], [2.0]], ["a", None])[1]
    ['a']
    """
    values = np.asarray(y, object) if isinstance(y, (list, tuple)) else np.asarray(y)
    if values.ndim != 1 or values.dtype.kind not in "fOU" or len(values) != np.shape(X)[0]:
        return X, y
    known = np.array([not is_missing(value) for value in values], bool)
    if known.all() or not known.any():
        return X, y
    log.warning("Unlabelled rows are left out: %d of %d.", int((~known).sum()), len(known))
    kept = values[known].tolist()
    if values.dtype.kind == "f" and all(value.is_integer() for value in kept):
        kept = [int(value) for value in kept]
    return np.asarray(X)[known], kept


def labelled_features(features: Features) -> Features:
    """Return the features less those without a label, and log how many these are."""
    known = features.is_labelled
    if known.all():
        return features
    log.warning("Unlabelled rows are left out: %d of %d.", int((~known).sum()), len(known))
    return features[known]
